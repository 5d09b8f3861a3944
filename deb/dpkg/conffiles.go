package dpkg

import (
	"path"

	"github.com/imaseal/imaseal/sign/xattr"
)

// conffileTarget follows a conffile that is a link below the root, as conffderef of
// dpkg's src/main/configure.c does. dpkg 1.21 to 1.23 use the result only where that
// failed. A link that leads to no end leads somewhere else on each step; where the
// search ends is then no regular file either.
func conffileTarget(root *xattr.Root, name string) string {
	const maxLinks = 25
	for range maxLinks + 1 {
		target, err := root.Readlink(name)
		if err != nil {
			return name
		}
		if path.IsAbs(target) {
			name = clean(target)
		} else {
			name = path.Join(path.Dir(name), target)
		}
	}
	return name
}
