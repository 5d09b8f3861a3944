package program

// This file holds the messages of the protocol, their limits and their parsers.

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/imaseal/imaseal/keys/remote"
)

// Version is that of the protocol, the value of "imaseal" in the first line of either
// side.
const Version = "sign-1"

// Limits of the protocol. A side that sees one exceeded ends the conversation.
const (
	// MaxRequestLine and MaxAnswerLine bound a line in bytes, its end included.
	MaxRequestLine = 1 << 20
	MaxAnswerLine  = 64 << 10
	// MaxBatch is how many digests one line may hold.
	MaxBatch = 1024
	// MaxInFlight is how many digests may wait for an answer.
	MaxInFlight = 16384
	// maxErrorText bounds the text of an error in bytes; more is cut off.
	maxErrorText = 2000
	// maxID is the last number that every JSON library reads exactly.
	maxID = 1<<53 - 1
)

// maxRetryAfter bounds how long a program can ask to be left alone.
const maxRetryAfter = time.Hour

// hashes are those that files are signed by.
var hashes = map[string]crypto.Hash{"sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512}

func hashName(h crypto.Hash) string {
	return strings.ToLower(strings.ReplaceAll(h.String(), "-", ""))
}

// A hello is the first line from imaseal.
type hello struct {
	Version string `json:"imaseal"`
	Key     string `json:"key"`
}

// A welcome is the first line from the program: the key, or an error.
type welcome struct {
	Version  string `json:"imaseal"`
	Public   []byte `json:"public,omitempty"`
	InFlight int    `json:"in_flight,omitempty"`
	Batch    int    `json:"batch,omitempty"`
	failure
}

// A request is each further line from imaseal.
type request struct {
	Sign []item `json:"sign"`
}

type item struct {
	ID     int64  `json:"id"`
	Hash   string `json:"hash"`
	Digest []byte `json:"digest"`
}

// An answer is each further line from the program: one for each item.
type answer struct {
	ID        int64  `json:"id"`
	Signature []byte `json:"signature,omitempty"`
	failure
}

// A failure says why there is no key or no signature.
type failure struct {
	Error        string `json:"error,omitempty"`
	Temporary    bool   `json:"temporary,omitempty"`
	RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
}

func newFailure(err error) failure {
	f := failure{Error: remote.Printable(err.Error(), maxErrorText)}
	if f.Error == "" {
		f.Error = "no reason given"
	}
	if after, ok := remote.IsTemporary(err); ok {
		f.Temporary, f.RetryAfterMS = true, after.Milliseconds()
	}
	return f
}

func (f failure) err() error {
	err := errors.New(remote.Printable(f.Error, maxErrorText))
	if !f.Temporary {
		return err
	}
	return remote.Temporary(err, time.Duration(min(f.RetryAfterMS, maxRetryAfter.Milliseconds()))*time.Millisecond)
}

func (f failure) check() error {
	switch {
	case f.RetryAfterMS < 0:
		return errors.New("retry_after_ms is negative")
	case !f.Temporary && f.RetryAfterMS != 0:
		return errors.New("retry_after_ms stands beside no temporary error")
	case f.Error == "" && f.Temporary:
		return errors.New("temporary stands beside no error")
	}
	return nil
}

// parseLine reads one object, which must have no field that v has not.
func parseLine(line []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one object in a line")
	}
	return nil
}

func parseHello(line []byte) (hello, error) {
	// The fields of another version are not known: its name decides first.
	var h hello
	if err := json.Unmarshal(line, &h); err != nil {
		return hello{}, err
	}
	if h.Version != Version {
		return hello{}, fmt.Errorf("this program speaks version %s of imaseal's protocol, not %s", Version, remote.Printable(h.Version, 40))
	}
	h = hello{}
	return h, parseLine(line, &h)
}

// parseWelcome returns the program's key and how it wants to be asked, or the error
// that the program reports in declined.
func parseWelcome(line []byte) (w welcome, public crypto.PublicKey, declined, err error) {
	if err := json.Unmarshal(line, &w); err != nil {
		return w, nil, nil, err
	}
	if w.Version != Version {
		return w, nil, nil, fmt.Errorf("it speaks %q, this imaseal %q", remote.Printable(w.Version, 40), Version)
	}
	w = welcome{}
	if err := parseLine(line, &w); err != nil {
		return w, nil, nil, err
	}
	if err := w.check(); err != nil {
		return w, nil, nil, err
	}
	if w.Error != "" {
		if w.Public != nil {
			return w, nil, nil, errors.New("it sent both a key and an error")
		}
		return w, nil, w.failure.err(), nil
	}
	if w.InFlight < 0 || w.InFlight > MaxInFlight || w.Batch < 0 || w.Batch > MaxBatch {
		return w, nil, nil, fmt.Errorf("in_flight %d or batch %d is out of bounds: at most %d and %d", w.InFlight, w.Batch, MaxInFlight, MaxBatch)
	}
	public, err = x509.ParsePKIXPublicKey(w.Public)
	if err != nil {
		return w, nil, nil, fmt.Errorf("its public key: %w", err)
	}
	switch public.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
		return w, public, nil, nil
	}
	return w, nil, nil, fmt.Errorf("its key is a %T: only RSA and ECDSA keys sign files", public)
}

// parseRequest reads a line of digests. Their ids must be above last, in ascending
// order. What is wrong with a single digest is for its answer to say.
func parseRequest(line []byte, last int64) ([]item, error) {
	var r request
	if err := parseLine(line, &r); err != nil {
		return nil, err
	}
	if len(r.Sign) == 0 {
		return nil, errors.New("a line without a digest")
	}
	if len(r.Sign) > MaxBatch {
		return nil, fmt.Errorf("%d digests in a line, more than %d", len(r.Sign), MaxBatch)
	}
	for _, i := range r.Sign {
		if i.ID <= last || i.ID > maxID {
			return nil, fmt.Errorf("id %d after id %d: ids ascend", i.ID, last)
		}
		last = i.ID
	}
	return r.Sign, nil
}

// digest returns what i asks to be signed.
func (i item) digest() (remote.Digest, error) {
	h, ok := hashes[i.Hash]
	if !ok {
		return remote.Digest{}, fmt.Errorf("unknown hash %s: there are sha256, sha384 and sha512", remote.Printable(i.Hash, 40))
	}
	if len(i.Digest) != h.Size() {
		return remote.Digest{}, fmt.Errorf("a digest of %d bytes is not one of %s", len(i.Digest), i.Hash)
	}
	return remote.Digest{Hash: h, Sum: i.Digest}, nil
}

func parseAnswer(line []byte) (answer, error) {
	var a answer
	if err := parseLine(line, &a); err != nil {
		return a, err
	}
	if err := a.check(); err != nil {
		return a, err
	}
	if a.ID <= 0 || a.ID > maxID {
		return a, fmt.Errorf("an answer with id %d", a.ID)
	}
	if (a.Error == "") == (len(a.Signature) == 0) {
		return a, fmt.Errorf("the answer to %d must have either a signature or an error", a.ID)
	}
	return a, nil
}

// readLine returns the next line without its end. io.EOF means that there is none;
// a last line without an end is io.ErrUnexpectedEOF. r must be at least as large as
// the longest line.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case err == io.EOF && len(line) > 0:
		return nil, io.ErrUnexpectedEOF
	case err == bufio.ErrBufferFull:
		return nil, &longLineError{r.Size()}
	case err != nil:
		return nil, err
	}
	return line[:len(line)-1], nil
}

// isEnd reports whether an error of readLine says that the other side has ended. A
// line that is too long is no end.
func isEnd(err error) bool {
	var long *longLineError
	return err != nil && !errors.As(err, &long)
}

// A longLineError says that a line is longer than its limit in bytes.
type longLineError struct{ limit int }

func (e *longLineError) Error() string { return fmt.Sprintf("a line of more than %d bytes", e.limit) }

// writeLine writes v as one line.
func writeLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}
