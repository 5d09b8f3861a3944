package rpmdb

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Limits of what rpm may print of a package. Nothing is allocated before it was read.
const (
	maxFiles  = 1 << 20   // as many as a header can list
	maxString = 1 << 16   // a name, or a signature in hexadecimal
	maxBinary = 192 << 20 // the longest header that rpm/installed.go takes, in base64
)

// A record is what rpm prints of a package, parsed; see query.go.
type record struct {
	// refusal is a line that is no record: "package x is not installed".
	refusal string

	instance                     uint64
	name, version, release, arch string
	region                       []byte
	relocated                    []string
	states                       []int64
	signatures                   []string
	rsa, dsa                     []byte
	openPGP                      []string
}

// A recordReader reads one record after the other.
type recordReader struct {
	r *bufio.Reader
	n int // records that were read
}

// next returns the next record; io.EOF when the last was complete.
func (p *recordReader) next() (*record, error) {
	head, err := p.r.Peek(1)
	if len(head) == 0 {
		if err == io.EOF {
			return nil, io.EOF
		}
		return nil, err
	}
	p.n++
	rec := new(record)
	if head[0] != recordStart[0] {
		line, err := p.line()
		if err != nil {
			return nil, p.at("a line that is no record", err)
		}
		rec.refusal = line
		return rec, nil
	}
	return rec, p.read(rec)
}

func (p *recordReader) at(what string, err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("what rpm prints, package %d: %s: %w", p.n, what, err)
}

func (p *recordReader) read(rec *record) error {
	err := p.expect(recordStart)
	if err != nil {
		return p.at("beginning", err)
	}
	number, err := p.word()
	if err == nil {
		rec.instance, err = strconv.ParseUint(number, 10, 32)
	}
	if err != nil {
		return p.at("number", err)
	}
	label, err := p.strings()
	if err == nil && len(label) != 4 {
		err = fmt.Errorf("%d names, not 4", len(label))
	}
	if err != nil {
		return p.at("name", err)
	}
	rec.name, rec.version, rec.release, rec.arch = label[0], label[1], label[2], label[3]
	if rec.region, err = p.binary(); err != nil {
		return p.at(rec.name+": HEADERIMMUTABLE", err)
	}
	if rec.relocated, err = p.strings(); err != nil {
		return p.at(rec.name+": FILENAMES", err)
	}
	if rec.states, err = p.numbers(); err != nil {
		return p.at(rec.name+": FILESTATES", err)
	}
	if rec.signatures, err = p.strings(); err != nil {
		return p.at(rec.name+": FILESIGNATURES", err)
	}
	if rec.rsa, err = p.binary(); err != nil {
		return p.at(rec.name+": RSAHEADER", err)
	}
	if rec.dsa, err = p.binary(); err != nil {
		return p.at(rec.name+": DSAHEADER", err)
	}
	if rec.openPGP, err = p.strings(); err != nil {
		return p.at(rec.name+": OPENPGP", err)
	}
	if err = p.expect(recordEnd); err != nil {
		return p.at(rec.name+": end", err)
	}
	return nil
}

// expect reads text.
func (p *recordReader) expect(text string) error {
	got := make([]byte, len(text))
	n, err := io.ReadFull(p.r, got)
	if !bytes.HasPrefix([]byte(text), got[:n]) {
		return fmt.Errorf("%q where %q has to be", got[:n], text)
	}
	return err
}

// line reads up to the end of a line, or of the text.
func (p *recordReader) line() (string, error) {
	var b []byte
	for {
		c, err := p.r.ReadByte()
		switch {
		case err == io.EOF || err == nil && c == '\n':
			return string(b), nil
		case err != nil:
			return "", err
		case len(b) == maxString:
			return "", errTooLong
		}
		b = append(b, c)
	}
}

var errTooLong = errors.New("longer than it may be")

// word reads what stands before a space.
func (p *recordReader) word() (string, error) {
	var b [24]byte
	for n := range b {
		c, err := p.r.ReadByte()
		if err != nil {
			return "", err
		}
		if c == ' ' {
			return string(b[:n]), nil
		}
		b[n] = c
	}
	return "", errTooLong
}

// numbers reads a list of integers, each with a space behind it, and the line's end.
func (p *recordReader) numbers() ([]int64, error) {
	var list []int64
	for {
		done, err := p.lineEnds()
		if err != nil || done {
			return list, err
		}
		if len(list) == maxFiles {
			return nil, fmt.Errorf("more than %d values", maxFiles)
		}
		word, err := p.word()
		if err != nil {
			return nil, err
		}
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
}

// strings reads a list of quoted strings, each with a space behind it, and the end
// of the line.
func (p *recordReader) strings() ([]string, error) {
	var list []string
	total := 0
	for {
		done, err := p.lineEnds()
		if err != nil || done {
			return list, err
		}
		if len(list) == maxFiles || total > maxBinary {
			return nil, fmt.Errorf("more than %d strings or %d bytes", maxFiles, maxBinary)
		}
		s, err := p.quoted()
		if err != nil {
			return nil, err
		}
		total += len(s)
		list = append(list, s)
	}
}

func (p *recordReader) lineEnds() (bool, error) {
	c, err := p.r.ReadByte()
	if err != nil || c == '\n' {
		return err == nil, err
	}
	return false, p.r.UnreadByte()
}

// quoted reads a string in single quotes and the space behind it. For a quote in the
// string the quotes are closed, one stands behind a backslash, and they are opened.
func (p *recordReader) quoted() (string, error) {
	if err := p.expect("'"); err != nil {
		return "", err
	}
	var b []byte
	for {
		c, err := p.r.ReadByte()
		if err != nil {
			return "", err
		}
		if c == '\'' {
			if c, err = p.r.ReadByte(); err != nil {
				return "", err
			}
			if c == ' ' {
				return string(b), nil
			}
			if c != '\\' {
				return "", fmt.Errorf("%q behind a quote", c)
			}
			if err := p.expect("''"); err != nil {
				return "", err
			}
			c = '\''
		}
		if len(b) == maxString {
			return "", errTooLong
		}
		b = append(b, c)
	}
}

// binary reads base64, broken into lines or not, up to a full stop at the end of a
// line.
func (p *recordReader) binary() ([]byte, error) {
	var text []byte
	for {
		c, err := p.r.ReadByte()
		switch {
		case err != nil:
			return nil, err
		case c == '.':
			raw := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
			n, err := base64.StdEncoding.Strict().Decode(raw, text)
			if err != nil {
				return nil, err
			}
			return raw[:n:n], p.expect("\n")
		case c == '\n':
			continue
		case len(text) == maxBinary:
			return nil, errTooLong
		}
		text = append(text, c)
	}
}
