package auditlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// maxLine bounds a line in bytes, its newline included.
	maxLine = 64 << 10
	// maxText bounds in bytes each text that comes from outside.
	maxText = 1024
)

// The outcomes of a request.
const (
	// Signed says that the signatures were made and released.
	Signed = "signed"
	// Refused says that nothing was signed: Reason says why.
	Refused = "refused"
	// Failed says that signing broke off and that nothing was released, though the
	// key may have signed some of it.
	Failed = "failed"
)

// An Entry is what the log says of one request. Sequence, Time and Previous are set
// by [Log.Append], who calls by [Entry.SetCaller].
type Entry struct {
	// Sequence counts the lines from 1.
	Sequence int64 `json:"seq"`
	// Time is when the line was written, RFC 3339 in UTC.
	Time string `json:"time"`
	// Previous is the SHA-256 of the line before, without its newline; of the first
	// line it is 64 zeros.
	Previous string `json:"prev"`
	// UID and User are those of the process; User is empty where the number has no
	// name.
	UID  int    `json:"uid"`
	User string `json:"user,omitempty"`
	// LoginUID is the user who logged in, as the kernel's audit system keeps it over
	// su and sudo; nil where it keeps none.
	LoginUID *uint32 `json:"login_uid,omitempty"`
	// SudoUser is the environment's SUDO_USER, Requester what the caller said of who
	// sent the request. Neither is checked.
	SudoUser  string `json:"sudo_user,omitempty"`
	Requester string `json:"requester,omitempty"`
	// KeyID is that of the signatures, KeySHA256 the SHA-256 of the public key's
	// SubjectPublicKeyInfo. Both in lower-case hexadecimal digits, and empty where the
	// request was refused before the key was opened.
	KeyID     string `json:"key_id,omitempty"`
	KeySHA256 string `json:"key_sha256,omitempty"`
	// RequestSHA256 is that of the request; empty where it was not read to its end.
	RequestSHA256 string `json:"request_sha256,omitempty"`
	// Packages and Digests are how many the request has, or had up to where it was
	// read.
	Packages int `json:"packages"`
	Digests  int `json:"digests"`
	// Names are the first packages of the request, for who reads the log: name and
	// version.
	Names []string `json:"names,omitempty"`
	// Outcome is Signed, Refused or Failed; Reason says why it is not Signed.
	Outcome string `json:"outcome"`
	Reason  string `json:"reason,omitempty"`
}

// origin is the Previous of the first line.
const origin = "0000000000000000000000000000000000000000000000000000000000000000"

// hashOf returns what the line after line has as its Previous.
func hashOf(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// marshal returns the line, without its newline.
func (e *Entry) marshal() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, err
	}
	line := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(line) >= maxLine {
		return nil, fmt.Errorf("an entry of %d bytes is too long for the log", len(line))
	}
	return line, nil
}

// parse reads a line, without its newline. It takes what marshal writes, and nothing
// else.
func parse(line []byte) (*Entry, error) {
	e := new(Entry)
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(e); err != nil {
		return nil, errors.New("it is no entry of a log") // err may quote a secret
	}
	again, err := e.marshal()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, line) {
		return nil, errors.New("it is not written as imaseal writes an entry")
	}
	return e, e.check()
}

// check reports what of e cannot be.
func (e *Entry) check() error {
	if e.Sequence < 1 {
		return fmt.Errorf("sequence number %d", e.Sequence)
	}
	if t, err := time.Parse(time.RFC3339, e.Time); err != nil || t.UTC().Format(time.RFC3339) != e.Time {
		return fmt.Errorf("time %.40q is not one in UTC", e.Time)
	}
	if !IsHead(e.Previous) {
		return fmt.Errorf("the hash of the line before is %.80q", e.Previous)
	}
	switch e.Outcome {
	case Signed, Refused, Failed:
	default:
		return fmt.Errorf("outcome %.40q", e.Outcome)
	}
	return nil
}

// IsHead reports whether s is written as the hash of a line.
func IsHead(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && hex.EncodeToString(b) == s
}

// clean bounds the texts of e, and takes out what a terminal or JSON could not show:
// names come from the request, and who asks chooses some of the others.
func (e *Entry) clean() {
	for _, s := range []*string{&e.User, &e.SudoUser, &e.Requester, &e.Reason} {
		*s = cleanText(*s)
	}
	names := make([]string, 0, min(len(e.Names), maxNames))
	for _, name := range e.Names[:min(len(e.Names), maxNames)] {
		names = append(names, cleanText(name))
	}
	e.Names = names
}

// maxNames is how many packages a line names.
const maxNames = 10

func cleanText(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "…"
	}
	if utf8.ValidString(s) && !containsUnprintable(s) {
		return s
	}
	var b bytes.Buffer
	for _, r := range s { // an invalid byte is U+FFFD here
		if !unicode.IsPrint(r) {
			r = utf8.RuneError
		}
		b.WriteRune(r)
	}
	return b.String()
}

func containsUnprintable(s string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return true
		}
	}
	return false
}
