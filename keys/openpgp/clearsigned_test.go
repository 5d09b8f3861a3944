package openpgp

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestUnwrapClearSignedGivesWhatGPGSigned(t *testing.T) {
	home := gpgHome(t)
	for _, name := range []string{"rsa.clear", "rsa-sha1.clear"} {
		message := readTestdata(t, name)
		inner, signed, err := UnwrapClearSigned(message)
		if err != nil || !signed {
			t.Fatalf("%v, %v", signed, err)
		}
		if want := runGPGIn(t, home, bytes.NewReader(message), "--decrypt", "--allow-weak-digest-algos"); string(inner) != want {
			t.Errorf("%q, gpg finds %q", inner, want)
		}
	}
}

type clearSignedCase struct {
	name, text string
	inner      string
	signed     bool
	want       string // of the error
}

func clearSignedCases(t testing.TB) []clearSignedCase {
	message := string(readTestdata(t, "rsa.clear"))
	inner := "imaseal\n\nwhat is signed\n- with a dash\n"
	start := strings.Index(message, "imaseal")
	end := strings.Index(message, "\n-----BEGIN PGP SIGNATURE")
	return []clearSignedCase{
		{name: "a message", text: message, inner: inner, signed: true},
		{name: "lines of DOS", text: strings.ReplaceAll(message, "\n", "\r\n"), inner: inner, signed: true},
		{name: "empty lines around it", text: "\n \n" + message + "\n\n", inner: inner, signed: true},
		{name: "no text in it", text: message[:start] + message[end:], inner: "\n", signed: true},
		{name: "text that is not signed", text: "Format: 1.8\n", inner: "Format: 1.8\n"},
		{name: "nothing", text: "", inner: ""},
		{name: "a signature alone", text: message[end+1:], inner: message[end+1:]},

		{name: "text before", text: "Format: 1.8\n" + message, want: "text before"},
		{name: "text after", text: message + "Files:\n", want: "text after"},
		{name: "two messages", text: message + message, want: "text after"},
		{name: "text on the first line", text: strings.Replace(message, "MESSAGE-----", "MESSAGE-----x", 1), want: "malformed"},
		{name: "a header that hides text", text: strings.Replace(message, "Hash: SHA256", "Hash: SHA256\nFiles: x", 1), want: "malformed"},
		{name: "no signature", text: message[:end], want: "malformed"},
		{name: "a signature without an end", text: message[:strings.Index(message, "-----END")], want: "malformed"},
		{name: "a start only", text: clearSignedStart, want: "malformed"},
		{name: "too large", text: message[:start] + strings.Repeat("x\n", maxKeyring/2) + message[start:], want: "too large"},
	}
}

func TestUnwrapClearSigned(t *testing.T) {
	for _, tt := range clearSignedCases(t) {
		t.Run(tt.name, func(t *testing.T) {
			inner, signed, err := UnwrapClearSigned([]byte(tt.text))
			if tt.want != "" {
				checkError(t, err, tt.want)
				if inner != nil {
					t.Errorf("an error comes with text: %q", inner)
				}
				return
			}
			if err != nil || signed != tt.signed || string(inner) != tt.inner {
				t.Errorf("%q, %v, %v; want %q, %v", inner, signed, err, tt.inner, tt.signed)
			}
		})
	}
}

func TestVerifyClearSigned(t *testing.T) {
	message := string(readTestdata(t, "rsa.clear"))
	for _, tt := range []struct {
		name, keyring, text string
		want                string // of the error
	}{
		{name: "a message", keyring: "rsa.asc", text: message},
		{name: "lines of DOS", keyring: "rsa.asc", text: strings.ReplaceAll(message, "\n", "\r\n")},
		{name: "white space at the end of a line", keyring: "rsa.asc", text: strings.Replace(message, "is signed", "is signed \t", 1)},
		{name: "another key", keyring: "other.asc", text: message, want: "unknown OpenPGP key"},
		{name: "SHA-1", keyring: "rsa.asc", text: string(readTestdata(t, "rsa-sha1.clear")), want: "over SHA1"},
		{name: "a word changed", keyring: "rsa.asc", text: strings.Replace(message, "is signed", "is  signed", 1), want: "by key "},
		{name: "a line more", keyring: "rsa.asc", text: strings.Replace(message, "imaseal\n", "imaseal\n\n", 1), want: "by key "},
		{name: "text after", keyring: "rsa.asc", text: message + "x", want: "text after"},
		{name: "not clear-signed", keyring: "rsa.asc", text: "x", want: "text before"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inner, info, err := loadKeyring(t, tt.keyring).VerifyClearSigned([]byte(tt.text))
			if tt.want != "" {
				checkError(t, err, tt.want)
				if inner != nil {
					t.Errorf("an error comes with text: %q", inner)
				}
				if strings.HasPrefix(tt.want, "unknown") && !errors.Is(err, ErrUnknownKey) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || string(inner) != "imaseal\n\nwhat is signed\n- with a dash\n" || info.Hash != "SHA256" {
				t.Errorf("%q, %+v, %v", inner, info, err)
			}
		})
	}
}
