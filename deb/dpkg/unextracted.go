package dpkg

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

// infoFolder has a list of files of each installed package, PACKAGE.list, or
// PACKAGE:ARCH.list where instances of several architectures may be installed.
const infoFolder = "info"

// isExcluded reports whether dpkg was told not to extract the file at path.
func (in *installation) isExcluded(path string) bool {
	if in.filters == nil {
		found := dpkgFilters(in.system, os.Getenv("HOME"), parentCommandLine())
		in.filters = &found
	}
	return excluded(*in.filters, path)
}

// explain decides on the files of which dpkg made no new one: it was told not to, or
// the file belongs to another package, or instance of this one, already. A file that no
// rule explains is an error, as it would be left without its label.
func (in *installation) explain() error {
	paths := map[string]string{}
	var left []*target
	for _, t := range in.missing {
		if in.isExcluded(t.path) {
			for _, path := range t.names() {
				in.out.skip(path, reasonExcluded)
			}
			continue
		}
		left = append(left, t)
		paths[t.path] = ""
	}
	if len(left) == 0 {
		return nil
	}
	if err := findOwners(in.adminDir, in.seal, paths); err != nil {
		return err
	}
	for _, t := range left {
		owner := paths[t.path]
		switch {
		case owner == "":
			return fmt.Errorf("%s: dpkg has made no %s%s, and nothing explains why", shown(t.path), shown(in.diversions.Name(t.path, in.seal.name)), unpackedSuffix)
		case owner == in.seal.name:
			if err := in.labelShared(t); err != nil {
				return fmt.Errorf("%s: %w", shown(t.path), err)
			}
		default:
			in.out.skip(t.path, reasonReplaced)
		}
	}
	return nil
}

// labelShared labels a file that another instance of the package has installed, when
// its content is the same and it has no label that holds.
func (in *installation) labelShared(t *target) error {
	f, err := in.on.Open(in.diversions.Name(t.path, in.seal.name))
	if err != nil {
		return err
	}
	defer f.Close()
	if t.digest == nil {
		return fmt.Errorf("it belongs to another instance of %s, and was not expected to", in.seal.name)
	}
	same, err := hasContent(f, t)
	if err != nil {
		return err
	}
	if !same {
		if in.seal.conffiles[t.path] {
			in.out.skip(t.path, reasonEdited)
			return nil
		}
		return fmt.Errorf("%s is not what the package has: it is shared with another instance, and was not replaced", f.Name())
	}
	has, err := f.Get(sign.XattrName)
	if err == nil && len(has) > 0 {
		if bytes.Equal(has, t.value) {
			in.out.Labelled++
			return nil
		}
		if in.holds(has, f) {
			in.out.skip(t.path, reasonOtherLabel)
			return nil
		}
	}
	return in.set(f, t, 1)
}

// labelKept labels the conffile that is installed when it is the one of the package:
// dpkg then keeps it and throws its new one away, and a version without signatures has
// left it without a label. Nothing of it is worth failing a package for.
func (in *installation) labelKept(t *target) {
	f, err := in.on.Open(in.conffileTarget(in.diversions.Name(t.path, in.seal.name)))
	if err != nil {
		return // there is none yet, or it is no file
	}
	defer f.Close()
	if f.Stat().Nlink != 1 || !in.accounts.isUser(f.Stat().Uid, t.user, t.uid) {
		return
	}
	has, err := f.Get(sign.XattrName)
	if err != nil || bytes.Equal(has, t.value) || len(has) > 0 && in.holds(has, f) {
		return
	}
	same, err := hasContent(f, t)
	if err == nil && same {
		err = f.Set(sign.XattrName, t.value)
	}
	if err != nil && !errors.Is(err, xattr.ErrUnsupported) {
		in.out.warn("the installed conffile %s, which dpkg keeps, has no label: %v", f.Name(), err)
	}
}

// hasContent reports whether f holds what the package has for t.
func hasContent(f *xattr.File, t *target) (bool, error) {
	if f.Stat().Size != t.size {
		return false, nil
	}
	content, err := f.Reader()
	if err != nil {
		return false, err
	}
	defer content.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, io.LimitReader(content, t.size+1)); err != nil {
		return false, err
	}
	if changed, err := f.Changed(); err != nil || changed {
		return false, fmt.Errorf("%s changes while it is looked at (%v)", f.Name(), err)
	}
	return bytes.Equal(sum.Sum(nil), t.digest.sum), nil
}

// holds reports whether a label that a file has already is to stay: one that a trusted
// key made over the content, or any signature where nobody is trusted by name.
func (in *installation) holds(label []byte, f *xattr.File) bool {
	sig, err := sign.ParseSignature(label)
	if err != nil || !sig.Hash.Strong() {
		return false
	}
	keys, _ := loadCertificates(in.system)
	if keys == nil {
		return true
	}
	content, err := f.Reader()
	if err != nil {
		return false
	}
	defer content.Close()
	h := sig.Hash.Crypto().New()
	if _, err := io.Copy(h, content); err != nil {
		return false
	}
	return keys.VerifyDigest(sig, h.Sum(nil)) == nil
}

// otherInstances returns the files of the other installed instances of a package.
func otherInstances(adminDir string, s *seal) (map[string]bool, error) {
	found := map[string]bool{}
	return found, readList(adminDir, "arch", func(r io.Reader) error {
		for arch, err := range lines(r) {
			if err != nil {
				return fmt.Errorf("architectures of dpkg: %w", err)
			}
			if arch == "" || arch == s.arch || strings.ContainsAny(arch, "/:") {
				continue
			}
			err := eachListed(adminDir, s.name+":"+arch+".list", func(path string) { found[path] = true })
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// eachListed calls f with every path of a list of files; never when there is no list.
func eachListed(adminDir, list string, f func(path string)) error {
	return readList(adminDir, filepath.Join(infoFolder, list), func(r io.Reader) error {
		for line, err := range lines(r) {
			if err != nil {
				return fmt.Errorf("%s: %w", list, err)
			}
			f(clean(line))
		}
		return nil
	})
}

// findOwners fills in which installed package has each path already: the name of
// another package, or that of this one for another instance of it, which wins.
func findOwners(adminDir string, s *seal, paths map[string]string) error {
	lists, err := os.ReadDir(filepath.Join(adminDir, infoFolder))
	if err != nil {
		return err
	}
	for _, l := range lists {
		instance, isList := strings.CutSuffix(l.Name(), ".list")
		name, arch, _ := strings.Cut(instance, ":")
		if !isList || name == s.name && (arch == "" || arch == s.arch) {
			continue
		}
		err := eachListed(adminDir, l.Name(), func(path string) {
			if owner, ok := paths[path]; ok && owner != s.name {
				paths[path] = name
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}
