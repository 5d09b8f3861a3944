package kernel

import (
	"fmt"
	"regexp"
	"strconv"
)

// A Version is that of a kernel, as far as features go by it. Distributions carry
// changes back, so an older kernel may have more.
type Version struct{ Major, Minor int }

var versionStart = regexp.MustCompile(`^(\d{1,4})\.(\d{1,4})(\D|$)`)

// ParseVersion reads a release such as "6.12.48+deb13-cloud-amd64", as uname -r
// prints it.
func ParseVersion(release string) (Version, error) {
	m := versionStart.FindStringSubmatch(release)
	if m == nil {
		return Version{}, fmt.Errorf("%.40q is no kernel version such as 6.12", release)
	}
	major, _ := strconv.Atoi(m[1]) // digits, few
	minor, _ := strconv.Atoi(m[2])
	return Version{major, minor}, nil
}

// Before reports whether v is older than other.
func (v Version) Before(other Version) bool {
	return v.Major < other.Major || v.Major == other.Major && v.Minor < other.Minor
}

// Known reports whether v is set.
func (v Version) Known() bool { return v != Version{} }

// String returns such as "6.12".
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }
