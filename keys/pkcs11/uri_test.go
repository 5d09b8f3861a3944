package pkcs11

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParseURI(t *testing.T) {
	slot := uint(695567883)
	for text, want := range map[string]URI{
		"pkcs11:":            {},
		"":                   {},
		"token=a":            {Token: "a"},
		"pkcs11:token=a;id=": {}, // an error, see below
		"pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;serial=;object=my-certificate": {},
		"pkcs11:library-manufacturer=Snake%20Oil;library-description=Soft;library-version=1.2;slot-id=695567883;slot-manufacturer=m;slot-description=d;model=1.0;manufacturer=Inc.;serial=0a;token=t%3B%3F%26;id=%01%ab%00;object=o/p;type=private?pin-source=/etc/pin&module-name=softhsm2": {
			Token: "t;?&", Manufacturer: "Inc.", Model: "1.0", Serial: "0a", SlotID: &slot, SlotDescription: "d", SlotManufacturer: "m",
			LibraryDescription: "Soft", LibraryManufacturer: "Snake Oil", LibraryVersion: "1.2", Object: "o/p", ID: []byte{1, 0xab, 0}, Type: "private",
			PINSource: "/etc/pin", ModuleName: "softhsm2",
		},
		"pkcs11:object=a+b;type=cert?module-path=/usr/lib/../lib/x.so": {Object: "a+b", Type: "cert", ModulePath: "/usr/lib/x.so"},
		"pkcs11:id=01":     {ID: []byte("01")},
		"pkcs11:token=a b": {Token: "a b"},
		"pkcs11:token=a?pin-source=file:/etc/pin":    {Token: "a", PINSource: "/etc/pin"},
		"pkcs11:?pin-source=file:///etc/a%20pin":     {PINSource: "/etc/a pin"},
		"pkcs11:?pin-source=file://localhost/pin":    {PINSource: "/pin"},
		"pkcs11:?pin-source=file:pin":                {PINSource: "pin"},
		"pkcs11:?pin-source=relative/pin":            {PINSource: "relative/pin"},
		"pkcs11:?pin-source=./a:b":                   {PINSource: "./a:b"},
		"pkcs11:?module-path=/usr/lib&module-name=a": {ModulePath: "/usr/lib", ModuleName: "a"},
	} {
		u, err := ParseURI(text)
		if strings.HasSuffix(text, "id=") || strings.Contains(text, "serial=;") {
			if err == nil || !strings.Contains(err.Error(), "its value is empty") {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if !reflect.DeepEqual(*u, want) {
			t.Errorf("%s: %+v", text, *u)
		}
		if again, err := ParseURI(u.String()); err != nil || !reflect.DeepEqual(again, u) {
			t.Errorf("%s: written as %s, which is %+v, %v", text, u, again, err)
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"pkcs11:token":                                  "attribute token: it has no value",
		"pkcs11:token=a;;object=b":                      "there must be attributes NAME=VALUE",
		"pkcs11:token=a;token=b":                        "attribute token: it is given twice",
		"pkcs11:?module-name=a&module-name=b":           "attribute module-name: it is given twice",
		"pkcs11:tokn=a":                                 "attribute tokn: it is none of RFC 7512",
		"pkcs11:Token=a":                                "attribute Token: it is none of RFC 7512",
		"pkcs11:token=%":                                "attribute token: a % must be followed",
		"pkcs11:token=%zz":                              "attribute token: a % must be followed",
		"pkcs11:token=%00":                              "attribute token: it holds a zero byte",
		"pkcs11:slot-id=x":                              "attribute slot-id: it must be a decimal number",
		"pkcs11:slot-id=-1":                             "attribute slot-id: it must be a decimal number",
		"pkcs11:slot-id=99999999999999999999":           "attribute slot-id: it must be a decimal number",
		"pkcs11:library-version=1.":                     "attribute library-version: it must be",
		"pkcs11:library-version=256":                    "attribute library-version: it must be",
		"pkcs11:type=secret-key":                        "attribute type: it must be private, public or cert",
		"pkcs11:pin-source=/a":                          "attribute pin-source: it belongs behind a question mark",
		"pkcs11:token=a?object=b":                       "attribute object: behind the question mark there may be",
		"pkcs11:?pin-source=|program":                   "attribute pin-source: programs are not run",
		"pkcs11:?pin-source=%7Cprogram":                 "attribute pin-source: programs are not run",
		"pkcs11:?pin-source=https://example.org/pin":    "attribute pin-source: only a path or a file: URI",
		"pkcs11:?pin-source=file://example.org/pin":     "attribute pin-source: a file of another machine",
		"pkcs11:?pin-source=file:":                      "attribute pin-source: it names no file",
		"pkcs11:?module-path=x.so":                      "attribute module-path: it must be an absolute path",
		"pkcs11:?module-name=../x":                      "attribute module-name: it must be a mere name",
		"pkcs11:?module-path=/x/y.so&module-name=z":     "attribute module-name: module-path names the library already",
		"pkcs11:token=" + strings.Repeat("x", maxURI):   "more than the",
		"pkcs11:object=a?module-name=b?module-path=/c/": "",
	} {
		u, err := ParseURI(text)
		if want == "" {
			continue // a second question mark is a part of the value: only no panic
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v", text, u, err)
		}
	}
}

// TestPINValue: a PIN in the URI is refused before anything else is said of it, and
// never repeated, however it is written.
func TestPINValue(t *testing.T) {
	for _, text := range []string{
		"pkcs11:token=a?pin-value=8a1f", "pkcs11:token=a;pin-value=8a1f", "pkcs11:tokn=a?pin-value=8a1f", "pkcs11:?pin-value=8a1f&pin-source=/x",
		"pkcs11:?pin-value=%zz8a1f", "pkcs11:?pin-value=8a&1f8a1f", "pkcs11:?pin-value=8a1f;more=8a1f", "pin-value=8a1f",
	} {
		for name, open := range map[string]func() error{
			"ParseURI":     func() error { _, err := ParseURI(text); return err },
			"Open":         func() error { _, err := Open(context.Background(), text, Options{}); return err },
			"Certificates": func() error { _, err := Certificates(context.Background(), text, Options{}); return err },
		} {
			err := open()
			if !errors.Is(err, errPINValue) || !strings.Contains(err.Error(), "--passphrase-file") || strings.Contains(err.Error(), "8a1f") {
				t.Errorf("%s of %s: %v", name, text, err)
			}
		}
	}
	for _, text := range []string{"pkcs11:?pin-valu=8a1f", "pkcs11:?PIN-VALUE=8a1f", "pkcs11:?pin-value%3D8a1f", "pkcs11:8a1f%", "pkcs11:?pin-source=x&8a1f~"} {
		if _, err := ParseURI(text); err == nil || strings.Contains(err.Error(), "8a1f") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	for _, seed := range []string{
		"pkcs11:token=a;object=b;id=%01?pin-source=file:/x&module-path=/y.so", "pkcs11:slot-id=1;library-version=1.2;type=cert",
		"pkcs11:?pin-value=1", "pkcs11:;;;", "pkcs11:a=b=c", "pkcs11:id=%00%", "?&=;", "pkcs11:token=a?pin-source=./b:c",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseURI(text)
		if err != nil {
			if u != nil {
				t.Error("a URI and an error")
			}
			return
		}
		if len(text) > maxURI/4 {
			return // what is escaped may be too long
		}
		again, err := ParseURI(u.String())
		if err != nil || !reflect.DeepEqual(u, again) {
			t.Errorf("%q is written as %q, which is %+v, %v", text, u, again, err)
		}
	})
}
