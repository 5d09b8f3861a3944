package deb

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

// TestWriteRefuses: nothing may have been written then.
func TestWriteRefuses(t *testing.T) {
	p := open(t, noFolder().bytes(t))
	good, err := sign.Sign(t.Context(), p, testKey, sign.Options{})
	if err != nil {
		t.Fatal(err)
	}
	value := good.Files[0].Value
	many := make([]sign.Entry, maxSignatures+1)
	tail := build{tail: []arMember{{name: "_x", content: make([]byte, maxTail+2)}}}.bytes(t)
	long := make([]byte, maxControl)
	for name, c := range map[string]struct {
		raw  []byte
		m    sign.Manifest
		want string
	}{
		"no statement":         {nil, sign.Manifest{Files: good.Files}, "no package statement"},
		"unsorted":             {nil, sign.Manifest{Files: []sign.Entry{{Path: "b", Value: value}, {Path: "a", Value: value}}, Statement: good.Statement}, `"a" after "b"`},
		"twice":                {nil, sign.Manifest{Control: []sign.Entry{{Path: "a", Value: value}, {Path: "a", Value: value}}, Statement: good.Statement}, `"a" after "a"`},
		"absolute path":        {nil, sign.Manifest{Files: []sign.Entry{{Path: "/a", Value: value}}, Statement: good.Statement}, "not relative"},
		"too many signatures":  {nil, sign.Manifest{Files: many, Statement: good.Statement}, "131073 signatures are more than"},
		"too large signatures": {nil, sign.Manifest{Files: []sign.Entry{{Path: "a", Value: long}}, Statement: good.Statement}, "sign fewer files"},
		"too long a tail":      {tail, *good, "bytes follow data.tar, at most"},
	} {
		q := p
		if c.raw != nil {
			q = open(t, c.raw)
		}
		var b bytes.Buffer
		err := q.Write(t.Context(), &b, &c.m, sign.WriteOptions{})
		if err == nil || !strings.Contains(err.Error(), c.want) || b.Len() > 0 {
			t.Errorf("%s: %v after %d bytes", name, err, b.Len())
		}
	}
}

// TestOpenPGPThatFails: the caller throws away what was written before.
func TestOpenPGPThatFails(t *testing.T) {
	p := open(t, noFolder().bytes(t))
	m, err := sign.Sign(t.Context(), p, testKey, sign.Options{})
	if err != nil {
		t.Fatal(err)
	}
	failed := errors.New("the card is gone")
	for name, c := range map[string]struct {
		size int
		err  error
		want string
	}{
		"error": {5, failed, "the card is gone"}, "empty": {0, nil, "has 0 bytes"}, "too large": {maxOpenPGP + 1, nil, "has 65537 bytes"},
	} {
		o := sign.WriteOptions{OpenPGP: func(context.Context, io.Reader) (sign.NewOpenPGPSignature, error) {
			return sign.NewOpenPGPSignature{Packet: make([]byte, c.size)}, c.err
		}}
		if err := p.Write(t.Context(), io.Discard, m, o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	large := build{tail: []arMember{{name: "_gpgorigin", content: make([]byte, maxOpenPGP+1)}}}.bytes(t)
	if sigs := open(t, large).OpenPGP(); len(sigs) != 1 || sigs[0].Packet != nil {
		t.Error("a signature that is too large is read")
	}
}
