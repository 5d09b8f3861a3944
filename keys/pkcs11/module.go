//go:build pkcs11 && cgo

package pkcs11

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	p11 "github.com/miekg/pkcs11"
)

// A library is what is used of a module's functions, C_… in the standard.
type library interface {
	Initialize(...p11.InitializeOption) error
	Finalize() error
	GetInfo() (p11.Info, error)
	GetSlotList(tokenPresent bool) ([]uint, error)
	GetSlotInfo(slot uint) (p11.SlotInfo, error)
	GetTokenInfo(slot uint) (p11.TokenInfo, error)
	OpenSession(slot, flags uint) (p11.SessionHandle, error)
	CloseSession(p11.SessionHandle) error
	GetSessionInfo(p11.SessionHandle) (p11.SessionInfo, error)
	Login(s p11.SessionHandle, user uint, pin string) error
	FindObjectsInit(p11.SessionHandle, []*p11.Attribute) error
	FindObjects(s p11.SessionHandle, most int) ([]p11.ObjectHandle, bool, error)
	FindObjectsFinal(p11.SessionHandle) error
	GetAttributeValue(p11.SessionHandle, p11.ObjectHandle, []*p11.Attribute) ([]*p11.Attribute, error)
	SignInit(p11.SessionHandle, []*p11.Mechanism, p11.ObjectHandle) error
	Sign(p11.SessionHandle, []byte) ([]byte, error)
}

// A module is a loaded library. A process initializes each once, and a login holds
// for all its sessions with a token, so what keys share of it is kept here.
type module struct {
	path string
	library
	users   int  // keys that are open
	started bool // initialized by us, so that we finalize it

	login sync.Mutex         // held while logging in
	pins  map[string]*secret // that a token has accepted, by its serial number and label
}

// A secret is a PIN that keys of a token share.
type secret struct {
	pin     []byte
	users   int
	refused error // why the token does not take it any more
}

var modules = struct {
	sync.Mutex
	byPath map[string]*module
}{byPath: map[string]*module{}}

// loadLibrary is replaced by tests.
var loadLibrary = func(path string) library {
	if ctx := p11.New(path); ctx != nil {
		return ctx
	}
	return nil
}

// openModule loads the module that u names, or another use of it.
func openModule(u *URI) (*module, error) {
	path, err := findModule(u, libraryFolders)
	if err != nil {
		return nil, err
	}
	modules.Lock()
	defer modules.Unlock()
	m, ok := modules.byPath[path]
	if !ok {
		lib := loadLibrary(path)
		if lib == nil {
			return nil, fmt.Errorf("PKCS #11 module %s cannot be loaded: it, or a library that it needs, is missing or for another kind of machine, or it is no PKCS #11 module", path)
		}
		// It stays loaded: not every library survives being unloaded.
		m = &module{path: path, library: lib, pins: map[string]*secret{}}
		modules.byPath[path] = m
	}
	if !m.started {
		err := m.Initialize()
		if err != nil && !errors.Is(err, p11.Error(p11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
			return nil, fmt.Errorf("PKCS #11 module %s cannot be started: %w%s", path, err, moduleHint(path))
		}
		m.started = err == nil
	}
	m.users++
	return m, nil
}

// moduleHint helps with modules that fail with a number only.
func moduleHint(path string) string {
	if strings.Contains(filepath.Base(path), "softhsm") {
		return " (SoftHSM reads SOFTHSM2_CONF, ~/.config/softhsm2/softhsm2.conf or /etc/softhsm2.conf: is its directories.tokendir there and yours to read?)"
	}
	return ""
}

// release gives the module back. abandoned says that a call into it has not returned,
// so that it must not be finalized.
func (m *module) release(abandoned bool) error {
	modules.Lock()
	defer modules.Unlock()
	m.users--
	if m.users > 0 || !m.started || abandoned {
		return nil
	}
	m.started = false
	if err := m.Finalize(); err != nil {
		return fmt.Errorf("PKCS #11 module %s: %w", m.path, err)
	}
	return nil
}

// losesCalls reports whether calls that run side by side may hang for ever once their
// connection is lost: p11-kit's client wakes but one of those that wait for an answer
// (seen in 0.24.1). A module with such a call cannot be started again either.
func (m *module) losesCalls() bool { return filepath.Base(m.path) == "p11-kit-client.so" }

// restart ends the module and starts it again, unless another key uses it. The caller
// sees to it that no call is under way. What fails here fails the next call too.
func (m *module) restart() {
	modules.Lock()
	defer modules.Unlock()
	if m.users == 1 && m.started {
		m.Finalize()
		m.Initialize()
	}
}

// libraryFolders are where modules are looked for, in this order.
var libraryFolders = []string{
	"/usr/lib/*-linux-gnu*/pkcs11", "/usr/lib64/pkcs11", "/usr/lib/pkcs11", "/usr/local/lib/pkcs11",
	"/usr/lib/*-linux-gnu*", "/usr/lib64", "/usr/lib", "/usr/local/lib64", "/usr/local/lib",
	"/usr/lib/softhsm", "/usr/lib/*-linux-gnu*/softhsm", "/usr/lib64/softhsm", "/usr/lib64/opensc-pkcs11",
}

// proxy is p11-kit's module with the tokens of all that are configured.
const proxy = "p11-kit-proxy"

// findModule returns the path of the module that u names: that of module-path, that
// of module-name in module-path or folders, else p11-kit's in folders.
func findModule(u *URI, folders []string) (string, error) {
	name := u.ModuleName
	if u.ModulePath != "" {
		info, err := os.Stat(u.ModulePath)
		switch {
		case err != nil:
			return "", fmt.Errorf("PKCS #11 module: %w", err)
		case !info.IsDir():
			return u.ModulePath, nil
		case name == "":
			return "", fmt.Errorf("%s is a folder: name the module in it by module-name too", u.ModulePath)
		}
		folders = []string{u.ModulePath}
	}
	if name == "" {
		name = proxy
	}
	for _, pattern := range folders {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			matches = nil // a folder of the user with a bracket in its name
		}
		if u.ModulePath != "" {
			matches = folders
		}
		for _, dir := range matches {
			for _, file := range []string{"lib" + name + ".so", name + ".so", name} {
				path := filepath.Join(dir, file)
				if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
					return path, nil
				}
			}
		}
	}
	if u.ModuleName == "" {
		return "", errors.New("the key names no PKCS #11 module, and p11-kit, which would find it, is not installed: add ?module-path=/PATH/MODULE.so to the key, or install p11-kit's modules (Debian: p11-kit-modules, Fedora: p11-kit)")
	}
	return "", fmt.Errorf("PKCS #11 module %s is in none of %s: give its path with module-path", name, strings.Join(folders, ", "))
}
