//go:build pkcs11 && cgo

package pkcs11

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	p11 "github.com/miekg/pkcs11"
)

// A token is one in a slot, as it was when it was looked at.
type token struct {
	slot uint
	p11.TokenInfo
}

// identity tells a token from others that could come into its slot.
func (t *token) identity() string { return t.SerialNumber + "\x00" + t.Label }

// uri names the token so that it can be found again. A label that is not there is not
// written, and no slot: their numbers change.
func (t *token) uri() *URI {
	return &URI{Token: t.Label, Manufacturer: t.ManufacturerID, Model: t.Model, Serial: t.SerialNumber}
}

func (t *token) String() string { return t.uri().String() + " in slot " + strconv.Itoa(int(t.slot)) }

// name is for messages.
func (t *token) name() string {
	if t.Label != "" {
		return fmt.Sprintf("token %q", t.Label)
	}
	return "token with serial number " + strconv.Quote(t.SerialNumber)
}

// errAbsent says that no token is there that could be meant. It may be put in again.
var errAbsent = errors.New("no token matches")

// findToken returns the one token that u names.
func (m *module) findToken(u *URI) (*token, error) {
	matching, others, err := m.tokens(u)
	if err != nil {
		return nil, err
	}
	switch len(matching) {
	case 1:
		return matching[0], nil
	case 0:
		return nil, fmt.Errorf("%s: %w; %s", u.tokenPart(), errAbsent, listed("in this module there are", "in this module there is no token at all: "+m.path, others))
	}
	return nil, fmt.Errorf("%s: more than one token matches: add token, serial or slot-id; %s", u.tokenPart(), listed("there are", "", matching))
}

// tokens returns the tokens that are there, apart by whether u names them. Those that
// are not initialized can hold no key.
func (m *module) tokens(u *URI) (matching, others []*token, err error) {
	ok, err := m.matches(u)
	if err != nil {
		return nil, nil, err
	}
	slots, err := m.GetSlotList(true)
	if err != nil {
		return nil, nil, fmt.Errorf("PKCS #11 module %s: listing its slots: %w", m.path, err)
	}
	for _, slot := range slots {
		info, err := m.GetTokenInfo(slot)
		if err != nil || info.Flags&p11.CKF_TOKEN_INITIALIZED == 0 {
			continue // pulled out just now, or blank
		}
		// Some modules end texts with a zero byte.
		for _, text := range []*string{&info.Label, &info.ManufacturerID, &info.Model, &info.SerialNumber} {
			*text = strings.TrimRight(*text, " \x00")
		}
		t := &token{slot, info}
		if ok && u.names(t) && m.slotMatches(u, slot) {
			matching = append(matching, t)
		} else {
			others = append(others, t)
		}
	}
	return matching, others, nil
}

// matches reports whether the module is one that u names.
func (m *module) matches(u *URI) (bool, error) {
	if u.LibraryManufacturer == "" && u.LibraryDescription == "" && u.LibraryVersion == "" {
		return true, nil
	}
	info, err := m.GetInfo()
	if err != nil {
		return false, fmt.Errorf("PKCS #11 module %s: %w", m.path, err)
	}
	major := strconv.Itoa(int(info.LibraryVersion.Major))
	return agrees(u.LibraryManufacturer, info.ManufacturerID) && agrees(u.LibraryDescription, info.LibraryDescription) &&
		(agrees(u.LibraryVersion, major) || u.LibraryVersion == major+"."+strconv.Itoa(int(info.LibraryVersion.Minor))), nil
}

func (m *module) slotMatches(u *URI, slot uint) bool {
	if u.SlotManufacturer == "" && u.SlotDescription == "" {
		return true
	}
	info, err := m.GetSlotInfo(slot)
	return err == nil && agrees(u.SlotManufacturer, info.ManufacturerID) && agrees(u.SlotDescription, info.SlotDescription)
}

func (u *URI) names(t *token) bool {
	return agrees(u.Token, t.Label) && agrees(u.Manufacturer, t.ManufacturerID) && agrees(u.Model, t.Model) &&
		agrees(u.Serial, t.SerialNumber) && (u.SlotID == nil || *u.SlotID == t.slot)
}

// agrees reports whether what a URI says of an attribute, "" for nothing, is so.
func agrees(want, have string) bool {
	return want == "" || want == strings.TrimRight(have, " \x00")
}

// tokenPart is u without what is not about tokens.
func (u *URI) tokenPart() *URI {
	short := *u
	short.Object, short.ID, short.Type, short.PINSource = "", nil, "", ""
	return &short
}

// maxListed bounds how many candidates an error lists.
const maxListed = 20

func listed[T fmt.Stringer](some, none string, all []T) string {
	if len(all) == 0 {
		return none
	}
	var names []string
	for _, one := range all[:min(len(all), maxListed)] {
		names = append(names, one.String())
	}
	slices.Sort(names)
	text := some + " " + strings.Join(names, ", ")
	if len(all) > maxListed {
		text += fmt.Sprintf(" and %d more", len(all)-maxListed)
	}
	return text
}

// needsLogin reports whether private objects of the token are seen after a login only.
func (t *token) needsLogin() bool { return t.Flags&p11.CKF_LOGIN_REQUIRED != 0 }

// logIn logs in, unless that is done, with a PIN that the token has accepted before,
// else with one that ask gives. It makes at most one attempt. The login holds for all
// sessions of this process with the token; who calls must call forget some time.
func (m *module) logIn(t *token, s p11.SessionHandle, ask func(prompt string) ([]byte, error), note func(string)) error {
	m.login.Lock()
	defer m.login.Unlock()
	known := m.pins[t.identity()]
	in, err := m.loggedIn(s)
	if err != nil {
		return err
	}
	if known == nil {
		known = new(secret)
		if !in {
			if known.pin, err = m.askPIN(t, ask, note); err != nil {
				return err
			}
		}
	}
	if !in {
		if err := m.tryPIN(t, s, p11.CKU_USER, known.pin); err != nil {
			if known.users == 0 {
				clear(known.pin)
			}
			return err
		}
	}
	known.users++
	m.pins[t.identity()] = known
	return nil
}

// logInAgain does the same with the PIN that logIn has left, for user CKU_USER, or
// CKU_CONTEXT_SPECIFIC for the one signature that was begun. A PIN that is refused now
// is not tried any more.
func (m *module) logInAgain(t *token, s p11.SessionHandle, user uint) error {
	m.login.Lock()
	defer m.login.Unlock()
	known := m.pins[t.identity()]
	if known == nil {
		return nil
	}
	if known.refused != nil {
		return known.refused
	}
	if user == p11.CKU_USER {
		if in, err := m.loggedIn(s); in || err != nil {
			return err
		}
	}
	err := m.tryPIN(t, s, user, known.pin)
	if errors.Is(err, errWrongPIN) || errors.Is(err, errLocked) {
		known.refused = err
	}
	return err
}

// loggedIn reports whether this process is logged in, by any of its keys.
func (m *module) loggedIn(s p11.SessionHandle) (bool, error) {
	info, err := m.GetSessionInfo(s)
	return info.State == p11.CKS_RO_USER_FUNCTIONS || info.State == p11.CKS_RW_USER_FUNCTIONS, err
}

// forget overwrites the PIN when no key needs it any more.
func (m *module) forget(t *token) {
	m.login.Lock()
	defer m.login.Unlock()
	known := m.pins[t.identity()]
	if known == nil {
		return
	}
	if known.users--; known.users == 0 {
		clear(known.pin)
		delete(m.pins, t.identity())
	}
}

// askPIN asks for the PIN of a token that would take one.
func (m *module) askPIN(t *token, ask func(string) ([]byte, error), note func(string)) ([]byte, error) {
	switch {
	case t.Flags&p11.CKF_USER_PIN_LOCKED != 0:
		return nil, fmt.Errorf("%s: %w", t.name(), errLocked)
	case t.Flags&p11.CKF_USER_PIN_INITIALIZED == 0:
		return nil, fmt.Errorf("%s has no user PIN yet: set one with the token's own tools", t.name())
	case t.Flags&p11.CKF_PROTECTED_AUTHENTICATION_PATH != 0:
		note(fmt.Sprintf("%s asks for its PIN itself, on its key pad or its own prompt", t.name()))
		return nil, nil
	case t.Flags&p11.CKF_USER_PIN_FINAL_TRY != 0:
		note(fmt.Sprintf("%s says that a wrong PIN now locks it", t.name()))
	case t.Flags&p11.CKF_USER_PIN_COUNT_LOW != 0:
		note(fmt.Sprintf("%s says that a wrong PIN was entered since the last right one", t.name()))
	}
	if ask == nil {
		return nil, fmt.Errorf("%s needs a PIN: use pin-source, --passphrase-file or --passphrase-fd", t.name())
	}
	pin, err := ask("PIN for " + t.name() + ": ")
	if err != nil {
		return nil, fmt.Errorf("%s: PIN: %w", t.name(), err)
	}
	if len(pin) == 0 {
		return nil, fmt.Errorf("%s: the PIN is empty, it was not tried", t.name())
	}
	return pin, nil
}

// errWrongPIN says that the token refused the PIN.
var errWrongPIN = errors.New("wrong PIN; it was tried once and is not tried again, as tokens lock")

var errLocked = errors.New("its PIN is locked after too many wrong ones: unlock it with the SO PIN (PUK) and the token's own tools")

// tryPIN is the one attempt.
func (m *module) tryPIN(t *token, s p11.SessionHandle, user uint, pin []byte) error {
	err := m.Login(s, user, string(pin))
	var code p11.Error
	if err == nil || !errors.As(err, &code) {
		return err
	}
	switch uint(code) {
	case p11.CKR_USER_ALREADY_LOGGED_IN:
		return nil
	case p11.CKR_PIN_INCORRECT, p11.CKR_PIN_INVALID, p11.CKR_PIN_LEN_RANGE:
		return fmt.Errorf("%s: %w (%s)", t.name(), errWrongPIN, codeName(code))
	case p11.CKR_PIN_LOCKED:
		return fmt.Errorf("%s: %w", t.name(), errLocked)
	case p11.CKR_PIN_EXPIRED:
		return fmt.Errorf("%s: its PIN has expired: set a new one with the token's own tools", t.name())
	case p11.CKR_USER_PIN_NOT_INITIALIZED:
		return fmt.Errorf("%s has no user PIN yet: set one with the token's own tools", t.name())
	case p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN, p11.CKR_USER_TOO_MANY_TYPES:
		return fmt.Errorf("%s: another user, such as the security officer, is logged in: log out there", t.name())
	}
	return fmt.Errorf("%s: logging in: %w", t.name(), err)
}

// codeName is the name of a return value in the standard, such as CKR_PIN_INCORRECT.
func codeName(code p11.Error) string {
	text := code.Error()
	if name := text[strings.LastIndexByte(text, ' ')+1:]; name != "" {
		return name
	}
	return fmt.Sprintf("0x%X", uint(code))
}
