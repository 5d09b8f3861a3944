package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/term"
)

// A Passphrase asks for a passphrase, showing prompt where a person is asked. The
// caller of it owns the bytes.
type Passphrase func(prompt string) ([]byte, error)

// maxPassphrase bounds what is read in bytes.
const maxPassphrase = 4096

// PassphraseFromFile takes the first line of the file at path, without its end. An
// empty one is an error: it is more likely a mistake than a passphrase.
func PassphraseFromFile(path string) Passphrase {
	return func(string) ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("reading the passphrase: %w", err)
		}
		defer f.Close()
		return firstLine(f)
	}
}

// PassphraseFromFD takes the first line of file descriptor fd, as
// [PassphraseFromFile] does. Asked again it gives the same passphrase: a pipe can
// be read but once. It may be called concurrently. Programs that are started from now
// on, such as gpg or a signing program, do not inherit fd.
func PassphraseFromFD(fd int) Passphrase {
	syscall.CloseOnExec(fd)
	// An error is kept too: once closed, the number may be that of another file.
	read := sync.OnceValues(func() ([]byte, error) {
		f := os.NewFile(uintptr(fd), fmt.Sprintf("file descriptor %d", fd))
		if f == nil {
			return nil, fmt.Errorf("reading the passphrase: %d is no file descriptor", fd)
		}
		defer f.Close()
		return firstLine(f)
	})
	return func(string) ([]byte, error) {
		line, err := read()
		return bytes.Clone(line), err
	}
}

func firstLine(r io.Reader) ([]byte, error) {
	// All the room at once: a buffer that grew would leave copies behind.
	text := make([]byte, maxPassphrase+1)
	defer clear(text)
	n := 0
	for n < len(text) && bytes.IndexByte(text[:n], '\n') < 0 {
		more, err := r.Read(text[n:])
		n += more
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading the passphrase: %w", err)
		}
	}
	line, _, _ := bytes.Cut(text[:n], []byte("\n"))
	if len(line) > maxPassphrase {
		return nil, fmt.Errorf("reading the passphrase: the first line has more than %d bytes", maxPassphrase)
	}
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return nil, errors.New("reading the passphrase: the first line is empty")
	}
	return bytes.Clone(line), nil
}

// PassphraseFromTerminal asks on the terminal of the process, without echo.
func PassphraseFromTerminal() Passphrase {
	return func(prompt string) ([]byte, error) {
		tty, err := openTerminal()
		if err != nil {
			return nil, err
		}
		defer tty.Close()
		return ask(tty, prompt)
	}
}

// NewPassphraseFromTerminal asks for a new passphrase, twice.
func NewPassphraseFromTerminal() Passphrase {
	return func(prompt string) ([]byte, error) {
		tty, err := openTerminal()
		if err != nil {
			return nil, err
		}
		defer tty.Close()
		first, err := ask(tty, prompt)
		if err != nil {
			return nil, err
		}
		second, err := ask(tty, "Again: ")
		if err != nil {
			clear(first)
			return nil, err
		}
		defer clear(second)
		if !bytes.Equal(first, second) {
			clear(first)
			return nil, errors.New("the two passphrases differ")
		}
		return first, nil
	}
}

// ErrNoTerminal says that there is nobody to ask.
var ErrNoTerminal = errors.New("a passphrase is needed and there is no terminal to ask on: use --passphrase-file or --passphrase-fd")

func openTerminal() (*os.File, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, ErrNoTerminal
	}
	return tty, nil
}

// ask reads one line. An interrupt while it waits puts the echo back on, and gives
// context.Canceled.
func ask(tty *os.File, prompt string) ([]byte, error) {
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(interrupted)

	fmt.Fprint(tty, prompt)
	type answer struct {
		line []byte
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		line, err := term.ReadPassword(fd)
		answered <- answer{line, err}
	}()
	select {
	case a := <-answered:
		fmt.Fprintln(tty)
		if a.err != nil {
			return nil, fmt.Errorf("reading the passphrase: %w", a.err)
		}
		return a.line, nil
	case <-interrupted:
		// The reader stays behind; the program is about to end.
		term.Restore(fd, before)
		fmt.Fprintln(tty)
		return nil, fmt.Errorf("reading the passphrase: %w", context.Canceled)
	}
}
