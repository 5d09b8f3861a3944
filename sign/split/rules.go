package split

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/imaseal/imaseal/sign"
)

// Rules say what a signing host signs. The zero value allows every request that is
// well formed.
type Rules struct {
	// Types, Hashes, Packages and Architectures are what is allowed; nil for all.
	// Packages are globs over package names, as in [path.Match].
	Types, Packages, Architectures []string
	Hashes                         []sign.Hash
	// MaxBytes, MaxPackages and MaxDigests are the most that a request may have, and
	// MaxPackageDigests one package; 0 for what the format allows.
	MaxBytes, MaxPackages, MaxDigests, MaxPackageDigests int64
	// RefuseHeaders refuses RPMs of which the build host has read the header only.
	RefuseHeaders bool
}

// maxRules bounds a file of rules in bytes.
const maxRules = 1 << 20

// ParseRules reads a file of rules: lines of "name = value", in which lists are
// separated by spaces, empty lines, and lines that begin with #. What it does not know
// is an error, so that a rule that is spelled wrongly is not one that is missing. So is
// a file without a rule: it may be one that was emptied.
func ParseRules(in io.Reader) (*Rules, error) {
	text, err := io.ReadAll(io.LimitReader(in, maxRules+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxRules {
		return nil, fmt.Errorf("more than %d bytes of rules", maxRules)
	}
	r := new(Rules)
	seen := map[string]bool{}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case !ok:
			err = errors.New("it is no rule: write name = value")
		case seen[name]:
			err = fmt.Errorf("a second rule %s", name)
		default:
			err = r.set(name, strings.Fields(value))
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		seen[name] = true
	}
	if len(seen) == 0 {
		return nil, errors.New("there is no rule in it, so everything would be allowed: name no rules for that")
	}
	return r, nil
}

func (r *Rules) set(name string, values []string) error {
	if len(values) == 0 {
		return errors.New("the rule has no value")
	}
	if slices.ContainsFunc(values, func(v string) bool { return v[0] == '#' }) {
		return errors.New("a comment has a line of its own: after a rule its words would be values")
	}
	one := func() (string, error) {
		if len(values) != 1 {
			return "", fmt.Errorf("rule %s has one value, not %d", name, len(values))
		}
		return values[0], nil
	}
	limit := func(n *int64, most int64) error {
		text, err := one()
		if err != nil {
			return err
		}
		if *n, err = number(text, most); err == nil && *n == 0 {
			err = fmt.Errorf("%s = 0 would refuse everything", name)
		}
		return err
	}
	switch name {
	case "types":
		r.Types = values
		for _, v := range values {
			if v != "deb" && v != "rpm" {
				return fmt.Errorf("type %.40q: there are deb and rpm", v)
			}
		}
	case "hashes":
		for _, v := range values {
			h, err := sign.ParseHash(v)
			if err != nil {
				return err
			}
			if !h.Strong() {
				return fmt.Errorf("%s digests are never signed", h)
			}
			r.Hashes = append(r.Hashes, h)
		}
	case "packages":
		r.Packages = values
		for _, v := range values {
			if _, err := path.Match(v, ""); err != nil {
				return fmt.Errorf("glob %.80q: %w", v, err)
			}
		}
	case "architectures":
		r.Architectures = values
	case "max-bytes":
		return limit(&r.MaxBytes, maxSize)
	case "max-packages":
		return limit(&r.MaxPackages, maxPackages)
	case "max-digests":
		return limit(&r.MaxDigests, maxDigests)
	case "max-package-digests":
		return limit(&r.MaxPackageDigests, maxDigests)
	case "header-digests":
		value, err := one()
		if err != nil {
			return err
		}
		if value != "allow" && value != "refuse" {
			return fmt.Errorf("header-digests is allow or refuse, not %.40q", value)
		}
		r.RefuseHeaders = value == "refuse"
	default:
		// It is not shown: a file named by mistake may hold a secret.
		return errors.New("there is no rule of this name: there are types, hashes, packages, architectures, max-bytes, max-packages, max-digests, max-package-digests and header-digests")
	}
	return nil
}

// ErrRefused is wrapped by what says that the rules do not allow a request.
var ErrRefused = errors.New("the rules do not allow it")

// limited bounds in, a request. Unlike other rules this one keeps the rest of what it
// refuses from being read.
func (r *Rules) limited(in io.Reader) io.Reader {
	if r.MaxBytes > 0 {
		return &limitedReader{r: in, left: r.MaxBytes, more: fmt.Errorf("%w: the request has more than %d bytes", ErrRefused, r.MaxBytes)}
	}
	return &limitedReader{r: in, left: maxSize, more: fmt.Errorf("it has more than %d bytes", int64(maxSize))}
}

// check reports why p may not be signed. packages and digests are how many the request
// has, p's included.
func (r *Rules) check(p *stanzaHead, packages, digests int) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: package %s: %s", ErrRefused, p, fmt.Sprintf(format, args...))
	}
	switch s := p.Statement; {
	case r.Types != nil && !slices.Contains(r.Types, p.Type):
		return refuse("its type is %s", p.Type)
	case r.Packages != nil && !slices.ContainsFunc(r.Packages, func(glob string) bool {
		ok, _ := path.Match(glob, s.Package)
		return ok
	}):
		return refuse("it has none of the names")
	case r.Architectures != nil && !slices.Contains(r.Architectures, s.Arch):
		return refuse("its architecture is %.40q", s.Arch)
	case r.Hashes != nil && !slices.Contains(r.Hashes, s.Hash):
		return refuse("its digests are by %s", s.Hash)
	case r.RefuseHeaders && p.Identity.Header:
		return refuse("its digests are those of its header, and nobody has read its files")
	case r.MaxPackageDigests > 0 && int64(p.Files+p.Scripts) > r.MaxPackageDigests:
		return refuse("it has %d files and scripts, more than %d", p.Files+p.Scripts, r.MaxPackageDigests)
	case r.MaxPackages > 0 && int64(packages) > r.MaxPackages:
		return refuse("it is one of more than %d", r.MaxPackages)
	case r.MaxDigests > 0 && int64(digests) > r.MaxDigests:
		return refuse("the request has more than %d digests", r.MaxDigests)
	}
	return nil
}
