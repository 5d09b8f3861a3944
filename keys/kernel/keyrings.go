package kernel

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// The keyrings of the kernel that decide about file signatures.
const (
	ringBuiltin      = ".builtin_trusted_keys"
	ringSecondary    = ".secondary_trusted_keys"
	ringMachine      = ".machine"
	ringPlatform     = ".platform"
	ringBlacklist    = ".blacklist"
	ringIMABlacklist = ".ima_blacklist"
)

// keyringNames are those that are looked for, in the order in which they are told.
var keyringNames = []string{
	".ima", "_ima", ".evm", "_evm", ringBuiltin, ringSecondary, ringMachine, ringPlatform, ringBlacklist, ringIMABlacklist,
}

const (
	// maxProcKeys bounds /proc/keys in bytes. A dbx of 2026 brings 500 lines of 140.
	maxProcKeys = 16 << 20
	// maxProcLine bounds one line. Descriptions have at most a page (KEY_MAX_DESC_SIZE).
	maxProcLine = 64 << 10
)

// A Key is a line of /proc/keys: a key, or a keyring.
type Key struct {
	Serial int32
	// Type is "keyring", "asymmetric", "blacklist", or another. The kernel cuts it to
	// nine letters; here it is whole where it is known.
	Type string
	UID  int
	// Dead says that it is revoked, expired, negative or otherwise of no use.
	Dead bool
	// Description is the rest of the line, for a keyring its name.
	Description string
	// Algorithm is that of an asymmetric key, such as "X509.rsa".
	Algorithm string
	// KeyID is the end of an asymmetric key's subject key identifier, at most four
	// bytes; nil where its certificate had none.
	KeyID []byte
	// SKID is the whole identifier, where the key was named after its certificate, as
	// it is unless somebody gave it another name.
	SKID []byte
}

// A line, by proc_keys_show in security/keys/proc.c:
//
//	"%08x %c%c%c%c%c%c%c %5d %4s %08x %5d %5d %-9.9s " and what the type tells of it
//
// The flags are instantiated, Revoked, Dead, in Quota, Under construction, Negative
// and invalidated.
var procLine = regexp.MustCompile(`^([0-9a-f]{8}) ([I-])([R-])([D-])[Q-][U-]([N-])([i-]) +-?\d+ +(perm|expd|\d+[smhdw]) [0-9a-f]{8} +(-?\d+) +-?\d+ (.{9}) (.*)$`)

// An asymmetric key tells its name, its subtype and the end of its identifier:
// asymmetric_key_describe in crypto/asymmetric_keys/asymmetric_type.c.
var (
	asymmetricEnd  = regexp.MustCompile(`^(.*): ([A-Za-z0-9]+\.[-A-Za-z0-9]+)(?: ((?:[0-9a-f]{2}){1,4}))? \[[^\]]*\]$`)
	asymmetricName = regexp.MustCompile(`: ((?:[0-9a-f]{2}){1,128})$`)
	keyringEnd     = regexp.MustCompile(`^(.*): (?:empty|\d+)$`)
)

// parseKeys reads what /proc/keys holds. Lines are told apart by newlines, which the
// name of a key can hold too: who may add keys can make up lines, so a number that
// occurs twice is left out, and [ReadKeyrings] asks the kernel about each.
func parseKeys(r io.Reader) ([]Key, error) {
	limited := &io.LimitedReader{R: r, N: maxProcKeys + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(make([]byte, 0, 4096), maxProcLine)
	var keys []Key
	at := map[int32]int{} // serial to index, -1 when it occurred twice
	count := 0
	for ; lines.Scan(); count++ {
		key, ok := parseKey(lines.Text())
		if !ok {
			continue // the rest of a name with a newline, or a format of the future
		}
		if i, twice := at[key.Serial]; twice {
			if i >= 0 {
				keys[i].Serial = 0
			}
			at[key.Serial] = -1
			continue
		}
		at[key.Serial] = len(keys)
		keys = append(keys, key)
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return nil, fmt.Errorf("a line has more than %d bytes: this is not /proc/keys", maxProcLine)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if limited.N == 0 {
		return nil, fmt.Errorf("more than %d bytes: this is not /proc/keys", maxProcKeys)
	}
	certain := keys[:0]
	for _, key := range keys {
		if key.Serial != 0 {
			certain = append(certain, key)
		}
	}
	if count > 0 && len(at) == 0 {
		return nil, errors.New("no line is like those of /proc/keys")
	}
	return certain, nil
}

func parseKey(line string) (Key, bool) {
	m := procLine.FindStringSubmatch(line)
	if m == nil {
		return Key{}, false
	}
	serial, err := strconv.ParseInt(m[1], 16, 32)
	if err != nil || serial == 0 {
		return Key{}, false // numbers of keys are positive
	}
	uid, err := strconv.Atoi(m[8])
	if err != nil {
		return Key{}, false
	}
	key := Key{Serial: int32(serial), UID: uid, Type: strings.TrimRight(m[9], " "), Description: m[10]}
	key.Dead = m[2] != "I" || m[3] != "-" || m[4] != "-" || m[5] != "-" || m[6] != "-" || m[7] == "expd"
	switch key.Type {
	case "keyring":
		if name := keyringEnd.FindStringSubmatch(key.Description); name != nil {
			key.Description = name[1]
		}
	case "asymmetri":
		key.Type = "asymmetric"
		key.readAsymmetric()
	}
	return key, true
}

func (k *Key) readAsymmetric() {
	m := asymmetricEnd.FindStringSubmatch(k.Description)
	if m == nil {
		return
	}
	k.Description, k.Algorithm = m[1], m[2]
	if m[3] == "" {
		return
	}
	k.KeyID, _ = hex.DecodeString(m[3]) // it matched
	if name := asymmetricName.FindStringSubmatch(k.Description); name != nil && strings.HasSuffix(name[1], m[3]) {
		k.SKID, _ = hex.DecodeString(name[1])
	}
}
