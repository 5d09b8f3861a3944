package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxMembers bounds how many keys of one keyring are read.
const maxMembers = 1 << 18

// A Keyring is one of the kernel's keyrings that decide about file signatures.
type Keyring struct {
	Name   string
	Serial int32
	// Keys are those in it that can be seen; keyrings that it links to are left out.
	Keys []Key
	// Hidden is how many keys in it cannot be seen from here.
	Hidden int
	// Listed says that what is in it could be read. /proc/keys alone does not tell.
	Listed bool
}

// Keyrings are what can be seen of a kernel's keyrings.
type Keyrings struct {
	// Visible says that the kernel's own keyrings can be seen. They are the host's
	// root's: another user, a container, and a process that may not ask see none, which
	// does not mean that there are none.
	Visible bool
	// Rings are those that were found, in an order of their own. There can be more
	// than one _ima.
	Rings []Keyring
	// All are all keys that can be seen, wherever they are.
	All []Key
}

// An asker asks the kernel about keys; a file of /proc/keys has none.
type asker struct {
	// members returns the numbers of the keys in a keyring.
	members func(serial int32) ([]int32, error)
	// describe returns "type;uid;gid;permissions;description".
	describe func(serial int32) (string, error)
}

// ReadKeyrings reads the running kernel's keyrings, as far as the process may. It
// changes none.
func ReadKeyrings() (*Keyrings, error) {
	f, err := os.Open("/proc/keys")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	keys, err := parseKeys(f)
	if err != nil {
		return nil, fmt.Errorf("/proc/keys: %w", err)
	}
	return gather(keys, &asker{keyctlMembers, keyctlDescribe}), nil
}

// KeyringsFrom reads a copy of /proc/keys. It tells which keyrings there are and
// which keys, not which key is in which keyring.
func KeyringsFrom(r io.Reader) (*Keyrings, error) {
	keys, err := parseKeys(r)
	if err != nil {
		return nil, err
	}
	return gather(keys, nil), nil
}

func gather(keys []Key, ask *asker) *Keyrings {
	k := &Keyrings{All: keys}
	bySerial := map[int32]Key{}
	for _, key := range keys {
		bySerial[key.Serial] = key
	}
	for _, name := range keyringNames {
		for _, key := range keys {
			// Any user can have a keyring _ima of his own.
			if key.Type != "keyring" || key.Description != name || key.UID != 0 || key.Dead {
				continue
			}
			ring := Keyring{Name: name, Serial: key.Serial}
			if ask != nil {
				if !ask.confirms(key) {
					continue
				}
				ring.list(bySerial, ask)
			}
			k.Rings = append(k.Rings, ring)
			// Only the kernel makes keyrings with a dot.
			k.Visible = k.Visible || name[0] == '.'
		}
	}
	return k
}

// confirms reports whether the kernel itself says what the line of /proc/keys says.
func (a *asker) confirms(key Key) bool {
	text, err := a.describe(key.Serial)
	if err != nil {
		// A process that may see a key may not be allowed to ask at all.
		return err == unix.EPERM || err == unix.ENOSYS
	}
	fields := strings.SplitN(text, ";", 5)
	return len(fields) == 5 && fields[0] == key.Type && fields[4] == key.Description
}

func (r *Keyring) list(bySerial map[int32]Key, ask *asker) {
	serials, err := ask.members(r.Serial)
	if err != nil {
		return
	}
	r.Listed = true
	for _, serial := range serials {
		key, ok := bySerial[serial]
		switch {
		case !ok || !ask.confirms(key):
			r.Hidden++
		case key.Type != "keyring":
			r.Keys = append(r.Keys, key)
		}
	}
}

// Named returns the keyrings of a name.
func (k *Keyrings) Named(name string) []Keyring {
	var found []Keyring
	for _, r := range k.Rings {
		if r.Name == name {
			found = append(found, r)
		}
	}
	return found
}

// Has returns whether a keyring of a name holds a key whose subject key identifier is
// skid. certain is false when that cannot be told from here.
func (k *Keyrings) Has(name string, skid []byte) (has, certain bool) {
	rings := k.Named(name)
	certain = k.Visible
	for _, r := range rings {
		if !r.Listed || r.Hidden > 0 {
			certain = false
		}
		if slices.ContainsFunc(r.Keys, func(key Key) bool { return key.Is(skid) }) {
			return true, true
		}
	}
	return false, certain
}

// Seen returns whether a key whose subject key identifier is skid is anywhere among
// the keys that can be seen.
func (k *Keyrings) Seen(skid []byte) bool {
	return slices.ContainsFunc(k.All, func(key Key) bool { return key.Is(skid) })
}

// Is reports whether the key has the subject key identifier skid, as far as can be
// told: where it was given a name of its own by the last four bytes.
func (k Key) Is(skid []byte) bool {
	if k.Type != "asymmetric" || k.Dead || len(k.KeyID) == 0 || len(skid) == 0 {
		return false
	}
	if len(k.SKID) > 0 {
		return bytes.Equal(k.SKID, skid)
	}
	return bytes.HasSuffix(skid, k.KeyID)
}

// keyctlMembers asks by KEYCTL_READ, which gives a keyring as native 32-bit numbers.
func keyctlMembers(serial int32) ([]int32, error) {
	for size := 1024; size <= maxMembers; size *= 4 {
		buf := make([]byte, size*4)
		n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, int(serial), buf, 0)
		if err != nil {
			return nil, err
		}
		if n > len(buf) {
			continue // it says how much there is
		}
		serials := make([]int32, 0, n/4)
		for ; n >= 4; n -= 4 {
			serials = append(serials, int32(binary.NativeEndian.Uint32(buf[len(serials)*4:])))
		}
		return serials, nil
	}
	return nil, fmt.Errorf("keyring %08x holds more than %d keys", serial, maxMembers)
}

func keyctlDescribe(serial int32) (string, error) {
	return unix.KeyctlString(unix.KEYCTL_DESCRIBE, int(serial))
}
