package rpm

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

func TestOpenPGP(t *testing.T) {
	made := 0
	options := func(packet string, rsa, force bool) sign.WriteOptions {
		return sign.WriteOptions{Force: force, OpenPGP: func(_ context.Context, r io.Reader) (sign.NewOpenPGPSignature, error) {
			made++
			signed, err := io.ReadAll(r)
			if !bytes.HasPrefix(signed, []byte(headerMagic)) {
				t.Errorf("what is signed begins with %x", signed[:8])
			}
			return sign.NewOpenPGPSignature{Packet: []byte(packet), RSA: rsa}, err
		}}
	}
	signedBy := func(raw []byte, o sign.WriteOptions) []byte {
		p := open(t, raw, Options{})
		m, err := sign.Sign(t.Context(), p, testKey(), sign.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return write(t, p, m, o)
	}
	where := func(raw []byte) string {
		var s []string
		for _, o := range open(t, raw, Options{}).OpenPGP() {
			s = append(s, o.Where+"="+string(o.Packet))
		}
		return strings.Join(s, " ")
	}
	unsign := func(raw []byte) []byte { return write(t, open(t, raw, Options{}), nil, sign.WriteOptions{}) }
	for _, v6 := range []bool{false, true} {
		plain := usual()
		plain.v6 = v6
		raw := plain.build(t)
		for _, rsa := range []bool{false, true} {
			want := map[bool]string{false: "DSAHEADER=one", true: "RSAHEADER=one"}[rsa]
			if v6 {
				want = "OPENPGP=one"
			}
			one := signedBy(raw, options("one", rsa, false))
			if got := where(one); got != want {
				t.Errorf("v6 %v, RSA %v: %s, not %s", v6, rsa, got, want)
			}
			if !bytes.Equal(unsign(one), raw) {
				t.Errorf("v6 %v, RSA %v: unsign does not give the original", v6, rsa)
			}
			// Another one in its place, or behind it.
			if p := open(t, one, Options{}); (p.CanWrite(nil, sign.WriteOptions{}) != nil) || (p.CanWrite(must(p.Manifest()), options("two", rsa, false)) == nil) != v6 {
				t.Errorf("v6 %v: a second signature without force", v6)
			}
			two := signedBy(one, options("two", !rsa, true))
			want = map[bool]string{false: "RSAHEADER=two", true: "DSAHEADER=two"}[rsa]
			if v6 {
				want = "OPENPGP=one OPENPGP=two"
			}
			if got := where(two); got != want {
				t.Errorf("v6 %v, RSA %v: %s, not %s", v6, rsa, got, want)
			}
			if !bytes.Equal(unsign(two), raw) {
				t.Errorf("v6 %v, RSA %v: unsign after a second signature does not give the original", v6, rsa)
			}
		}
		// One that was there before stays, unless it was replaced.
		plain.editSig = func(e []entry) []entry {
			if v6 {
				return append(e, textsEntry(sigOpenPGP, "b2xk"))
			}
			return append(e, binEntry(sigRSA, []byte("old")), binEntry(sigPGP, []byte("older")))
		}
		raw = plain.build(t)
		kept := signedBy(raw, sign.WriteOptions{})
		if where(kept) != where(raw) || !bytes.Equal(unsign(kept), raw) {
			t.Errorf("v6 %v: an earlier signature is not kept: %s", v6, where(kept))
		}
		added := signedBy(raw, options("new", true, true))
		if want := map[bool]string{false: "RSAHEADER=new", true: "OPENPGP=old OPENPGP=new"}[v6]; where(added) != want {
			t.Errorf("v6 %v: %s, not %s", v6, where(added), want)
		}
		if v6 != bytes.Equal(unsign(added), raw) || !v6 && where(unsign(added)) != "RSAHEADER=new" {
			t.Errorf("v6 %v: unsign gives %s", v6, where(unsign(added)))
		}
	}
	if made != 10 {
		t.Errorf("%d signatures were made", made)
	}
	p := open(t, usual().build(t), Options{})
	o := sign.WriteOptions{OpenPGP: func(context.Context, io.Reader) (sign.NewOpenPGPSignature, error) {
		return sign.NewOpenPGPSignature{}, nil
	}}
	if err := p.Write(t.Context(), io.Discard, new(sign.Manifest), o); err == nil {
		t.Error("an empty OpenPGP signature is written")
	}
}

func must(m *sign.Manifest, err error) *sign.Manifest {
	if err != nil {
		panic(err)
	}
	return m
}

// TestOpenPGPMark has reserves in which nothing can be noted, and one package that
// has nothing but the mark.
func TestOpenPGPMark(t *testing.T) {
	warned := 0
	o := sign.WriteOptions{
		OpenPGP: func(context.Context, io.Reader) (sign.NewOpenPGPSignature, error) {
			return sign.NewOpenPGPSignature{Packet: []byte("packet")}, nil
		},
		Warn: func(string) { warned++ },
	}
	for name, c := range map[string]struct {
		reserve []byte // nil: none
		empty   bool
		noted   bool
	}{
		"zeros":            {make([]byte, usualReserve), false, true},
		"just enough":      {make([]byte, markSize), false, true},
		"too short":        {make([]byte, markSize-1), false, false},
		"used otherwise":   {append(make([]byte, 100), 1), false, false},
		"used at its head": {append([]byte("imaseal\x00"), make([]byte, 9)...), false, true},
		"none":             {nil, false, false},
		"no files":         {make([]byte, usualReserve), true, true},
	} {
		if name == "used at its head" {
			c.reserve[len(c.reserve)-1], c.noted = 1, false
		}
		plain := usual()
		if c.empty {
			plain.files = nil
		}
		plain.editSig = func(e []entry) []entry {
			if e = without(e, sigReservedSpace); c.reserve != nil {
				e = append(e, binEntry(sigReservedSpace, c.reserve))
			}
			return e
		}
		raw := plain.build(t)
		p := open(t, raw, Options{})
		m, err := sign.Sign(t.Context(), p, testKey(), sign.Options{})
		if err != nil {
			t.Fatal(err)
		}
		warned = 0
		out := open(t, write(t, p, m, o), Options{})
		if (warned == 0) != c.noted {
			t.Errorf("%s: %d warnings", name, warned)
		}
		if m, err := out.Manifest(); m == nil || err != nil {
			t.Errorf("%s: nothing is there to be taken off: %v", name, err)
		}
		back := write(t, out, nil, sign.WriteOptions{})
		if bytes.Equal(back, raw) != c.noted {
			t.Errorf("%s: unsign gives the original: %v", name, !c.noted)
		}
		if left := open(t, back, Options{}).OpenPGP(); (len(left) == 0) != c.noted {
			t.Errorf("%s: OpenPGP signatures left: %v", name, left)
		}
	}
}
