package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/scripts/kernellab/plan"
)

// loadKeys loads the certificates, each of which is a check of its own.
func (g *guest) loadKeys(p plan.Plan) error {
	for _, k := range p.Keys {
		began := time.Now()
		seen := g.tryKey(plan.KeyChange{Keyring: p.Keyring, File: k.File, Name: k.ID})
		g.report(began, plan.Record{ID: k.ID, Case: 2, Expect: k.Expect, Seen: seen})
	}
	return nil
}

// tryKey changes a keyring.
func (g *guest) tryKey(c plan.KeyChange) string {
	ring, err := g.keyring(c.Keyring)
	if err != nil {
		return err.Error()
	}
	if c.Unlink {
		err = unlink(ring, c.Name)
	} else {
		err = load(ring, c)
	}
	switch {
	case err == nil:
		return plan.Allowed
	case errors.Is(err, unix.ENOKEY), errors.Is(err, unix.EKEYREJECTED), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return plan.Denied
	default:
		return err.Error()
	}
}

func load(ring int, c plan.KeyChange) error {
	payload, err := os.ReadFile(c.File)
	if err != nil {
		return err
	}
	_, err = unix.AddKey(cmp.Or(c.Type, "asymmetric"), c.Name, payload, ring)
	return err
}

// unlink takes a key out of a keyring. Its number is taken from /proc/keys: searching a
// keyring takes rights on the key that root has not.
func unlink(ring int, name string) error {
	text, err := os.ReadFile("/proc/keys")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		number, _, _ := strings.Cut(line, " ")
		var key int
		if !strings.Contains(line, " asymmetri "+name+": ") {
			continue
		}
		if _, err := fmt.Sscanf(number, "%x", &key); err != nil {
			return fmt.Errorf("/proc/keys: %q: %v", line, err)
		}
		_, err = unix.KeyctlInt(unix.KEYCTL_UNLINK, key, ring, 0, 0)
		return err
	}
	return fmt.Errorf("/proc/keys has no key %q", name)
}

// keyring returns the number of a keyring: that of the kernel's own, which
// /proc/keys tells, or of one at the user's, which is made once.
func (g *guest) keyring(name string) (int, error) {
	if id, ok := g.rings[name]; ok {
		return id, nil
	}
	id, err := findKeyring(name)
	if err == nil {
		g.rings[name] = id
	}
	return id, err
}

func findKeyring(name string) (int, error) {
	if !strings.HasPrefix(name, ".") {
		id, err := unix.AddKey("keyring", name, nil, unix.KEY_SPEC_USER_KEYRING)
		if err != nil {
			return 0, fmt.Errorf("making keyring %s: %w", name, err)
		}
		return id, nil
	}
	text, err := os.ReadFile("/proc/keys")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 9 || f[7] != "keyring" || strings.TrimSuffix(f[8], ":") != name {
			continue
		}
		var id int
		if _, err := fmt.Sscanf(f[0], "%x", &id); err != nil {
			return 0, fmt.Errorf("/proc/keys: %q: %w", line, err)
		}
		return id, nil
	}
	return 0, fmt.Errorf("the kernel has no keyring %s", name)
}
