package keys

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// A Passphrase asks for a passphrase, showing prompt where a person is asked. The
// caller of it owns the bytes.
type Passphrase func(prompt string) ([]byte, error)

// maxPassphrase bounds what is read in bytes.
const maxPassphrase = 4096

// PassphraseFromFile takes the first line of the file at path.
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

// PassphraseFromFD takes the first line of file descriptor fd. Asked again it gives
// the same passphrase: a pipe can be read but once.
func PassphraseFromFD(fd int) Passphrase {
	var line []byte
	return func(string) ([]byte, error) {
		if line == nil {
			f := os.NewFile(uintptr(fd), fmt.Sprintf("file descriptor %d", fd))
			if f == nil {
				return nil, fmt.Errorf("reading the passphrase: %d is no file descriptor", fd)
			}
			defer f.Close()
			var err error
			if line, err = firstLine(f); err != nil {
				return nil, err
			}
		}
		return bytes.Clone(line), nil
	}
}

func firstLine(r io.Reader) ([]byte, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxPassphrase+1)).ReadBytes('\n')
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	if len(line) > maxPassphrase {
		return nil, fmt.Errorf("reading the passphrase: the first line has more than %d bytes", maxPassphrase)
	}
	return bytes.TrimRight(line, "\r\n"), nil
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

func openTerminal() (*os.File, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errors.New("a passphrase is needed and there is no terminal to ask on: use --passphrase-file or --passphrase-fd")
	}
	return tty, nil
}

func ask(tty *os.File, prompt string) ([]byte, error) {
	fmt.Fprint(tty, prompt)
	line, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(tty)
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	return line, nil
}
