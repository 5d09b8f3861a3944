package auditlog

import (
	"os"
	"os/user"
	"strconv"
	"strings"
)

// SetCaller sets who runs this process.
func (e *Entry) SetCaller() {
	e.UID = os.Getuid()
	if u, err := user.LookupId(strconv.Itoa(e.UID)); err == nil {
		e.User = u.Username
	}
	e.SudoUser = os.Getenv("SUDO_USER")
	e.LoginUID = loginUID("/proc/self/loginuid")
}

// noLogin is the kernel's number for a process that nobody has logged in for.
const noLogin = 1<<32 - 1

// loginUID reads the user for whom the kernel's audit system accounts this process;
// nil where that is nobody.
func loginUID(path string) *uint32 {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil || n == noLogin {
		return nil
	}
	id := uint32(n)
	return &id
}
