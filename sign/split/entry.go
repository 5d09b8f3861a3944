package split

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/imaseal/imaseal/sign"
)

// An entry is one file or script of a stanza.
type entry struct {
	Control bool
	Path    string // a [sign.File.Path]
	// Digest and Inode are those of a [sign.FileDigest], in a request.
	Digest []byte
	Inode  int
	// Value is the file signature, in a response.
	Value []byte
}

func (e *entry) kind() string {
	if e.Control {
		return "script"
	}
	return "file"
}

// noInode stands for an Inode of 0.
const noInode = "-"

// appendDigest appends the line that e has in a request.
func (e *entry) appendDigest(b []byte) []byte {
	b = append(append(b, e.kind()...), ' ')
	b = append(hex.AppendEncode(b, e.Digest), ' ')
	if e.Inode == 0 {
		b = append(b, noInode...)
	} else {
		b = strconv.AppendInt(b, int64(e.Inode), 10)
	}
	return append(sign.AppendQuoted(append(b, ' '), e.Path), '\n')
}

// appendValue appends the line that e has in a response.
func (e *entry) appendValue(b []byte) []byte {
	b = append(append(b, e.kind()...), " 0s"...)
	b = append(base64.StdEncoding.AppendEncode(b, e.Value), ' ')
	return append(sign.AppendQuoted(b, e.Path), '\n')
}

// check reports why e can't be one of p that stands after before, nil for none.
func (e *entry) check(p *stanzaHead, before *entry) error {
	if err := sign.CheckPath(e.Path); err != nil {
		return err
	}
	if len(e.Path) > maxPath {
		return fmt.Errorf("path %.80q… has %d bytes, more than the %d of Linux", e.Path, len(e.Path), maxPath)
	}
	if e.Control {
		if err := p.checkScript(e.Path); err != nil {
			return err
		}
	}
	if before != nil && before.Control == e.Control && before.Path >= e.Path {
		return fmt.Errorf("%.200q stands after %.200q: paths must be sorted, each once", e.Path, before.Path)
	}
	return nil
}

// entries reads the files and scripts of one stanza.
type entries struct {
	l     *lines
	p     *stanzaHead
	left  [2]int // files, scripts
	last  *entry
	value func(e *entry, text string) error // sets what stands between kind and path
	parts int                               // how many words that is
}

// next returns the next entry, nil after the last.
func (s *entries) next() (*entry, error) {
	e := new(entry)
	switch {
	case s.left[0] > 0:
		s.left[0]--
	case s.left[1] > 0:
		s.left[1]--
		e.Control = true
	default:
		return nil, nil
	}
	line, err := s.l.next()
	if err != nil {
		return nil, err
	}
	rest, ok := strings.CutPrefix(line, e.kind()+" ")
	if !ok {
		return nil, s.l.errorf("it is %s, not the %s that is still to come (%d files, %d scripts)", shown(line), e.kind(), s.p.Files, s.p.Scripts)
	}
	at := 0
	for range s.parts {
		n := strings.IndexByte(rest[at:], ' ')
		if n < 0 {
			return nil, s.l.errorf("it is %s, which has no path", shown(line))
		}
		at += n + 1
	}
	if err := s.value(e, rest[:at-1]); err != nil {
		return nil, s.l.wrap(err)
	}
	if e.Path, err = sign.Unquote([]byte(rest[at:])); err != nil {
		return nil, s.l.wrap(err)
	}
	if err := e.check(s.p, s.last); err != nil {
		return nil, s.l.wrap(err)
	}
	s.last = e
	return e, nil
}

// A digestReader is what reads the middle of a request's lines, with what it has to
// remember of a package.
type digestReader struct {
	hash   sign.Hash
	inodes []*inode
}

// An inode is a file with several names.
type inode struct {
	digest string
	names  int
}

func (r *digestReader) set(e *entry, text string) error {
	sum, group, _ := strings.Cut(text, " ")
	digest, err := hex.DecodeString(sum)
	if err != nil || len(digest) != r.hash.Size() || hex.EncodeToString(digest) != sum {
		return fmt.Errorf("%.140q is no %s digest of %d lower-case digits", sum, r.hash, 2*r.hash.Size())
	}
	e.Digest = digest
	if group == noInode {
		return nil
	}
	if e.Control {
		return fmt.Errorf("a script is no hard link")
	}
	if e.Inode, err = number(group, maxInodes); err != nil {
		return err
	}
	switch {
	case e.Inode < 1 || e.Inode > len(r.inodes)+1:
		return fmt.Errorf("hard-linked files are numbered from 1 in the order of their first names: %d comes too early", e.Inode)
	case e.Inode == len(r.inodes)+1:
		r.inodes = append(r.inodes, &inode{digest: sum, names: 1})
		return nil
	}
	i := r.inodes[e.Inode-1]
	i.names++
	if i.digest != sum {
		return fmt.Errorf("it is another name of hard-linked file %d, but has another digest", e.Inode)
	}
	return nil
}

// end checks what is known only at the end of a package.
func (r *digestReader) end() error {
	for n, i := range r.inodes {
		if i.names < 2 {
			return fmt.Errorf("hard-linked file %d has one name only", n+1)
		}
	}
	return nil
}

// setValue reads the middle of a response's lines.
func setValue(e *entry, text string) (err error) {
	e.Value, err = parseValue(text)
	return err
}

func parseValue(text string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(text, "0s")
	if !ok {
		return nil, fmt.Errorf("%.40q is no signature: it does not begin with 0s", text)
	}
	value, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("%.40q is no signature in base64", text)
	}
	if _, err := sign.ParseSignature(value); err != nil {
		return nil, err
	}
	return value, nil
}
