package installed

import (
	"bytes"
	"context"
	"testing"
)

func (s *scene) clear(o ClearOptions, names ...string) *Result {
	s.t.Helper()
	r, err := s.system().Clear(context.Background(), names, o)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func TestClearRemovesWhatWasSetAndNothingElse(t *testing.T) {
	s := newScene(t)
	s.install("a", map[string]string{"usr/bin/a": "A", "usr/bin/local": "L", "usr/bin/hash": "H", "=usr/bin/plain": "P"})
	s.install("b", map[string]string{"usr/bin/b": "B"})
	wantFindings(t, s.apply(ApplyOptions{Keys: s.keys}))
	local := signed(t, newKey(t, 0x22222222), "L")
	digest := append([]byte{4, 4}, make([]byte, 32)...)
	s.setLabel("usr/bin/local", local)
	s.setLabel("usr/bin/hash", digest)
	s.setLabel("usr/bin/plain", local)
	if r := s.clear(ClearOptions{DryRun: true}, "a"); r.Reports[0].Changed != 1 || s.label("usr/bin/a") == nil {
		t.Errorf("dry run: %+v", *r.Reports[0])
	}
	r := s.clear(ClearOptions{}, "a")
	wantFindings(t, r, "other key /usr/bin/local")
	if r.Reports[0].Changed != 1 || s.label("usr/bin/a") != nil {
		t.Errorf("%+v, label %x", *r.Reports[0], s.label("usr/bin/a"))
	}
	if !bytes.Equal(s.label("usr/bin/local"), local) || !bytes.Equal(s.label("usr/bin/hash"), digest) || !bytes.Equal(s.label("usr/bin/plain"), local) {
		t.Error("a label that is not the package's was removed")
	}
	if s.label("usr/bin/b") == nil {
		t.Error("a package that was not named was cleared")
	}
}

func TestClearLeavesWhatAnotherInstanceCarries(t *testing.T) {
	s := newScene(t)
	s.install("lib", map[string]string{"usr/share/doc/lib": "DOC", "usr/lib/amd64/lib.so": "A"})
	s.install("lib", map[string]string{"usr/share/doc/lib": "DOC"}).Arch = "i386"
	s.db[1].Files[0].Value = s.db[0].Files[1].Value // signed deterministically
	wantFindings(t, s.apply(ApplyOptions{Keys: s.keys}))
	r := s.clear(ClearOptions{}, "lib:amd64")
	if s.label("usr/share/doc/lib") == nil || s.label("usr/lib/amd64/lib.so") != nil || r.Reports[0].Changed != 1 {
		t.Errorf("%+v", *r.Reports[0])
	}
	s.clear(ClearOptions{}, "lib")
	if s.label("usr/share/doc/lib") != nil {
		t.Error("the label of both was left")
	}
}
