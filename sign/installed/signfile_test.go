package installed

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

func TestSignFile(t *testing.T) {
	s := newScene(t)
	exec, err := sign.NewSelection([]string{sign.SelectExec}, nil)
	if err != nil {
		t.Fatal(err)
	}
	other := signed(t, newKey(t, 0x22222222), "SCRIPT")
	for name, c := range map[string]struct {
		content  string
		mode     os.FileMode
		label    []byte
		select_  sign.Selection
		named    bool
		dryRun   bool
		want     string
		labelled bool
	}{
		"plain":              {content: "SCRIPT", mode: 0o755, want: Signed, labelled: true},
		"again":              {content: "SCRIPT", mode: 0o755, label: signed(t, s.key, "SCRIPT"), want: AlreadySigned, labelled: true},
		"edited":             {content: "SCRIPT", mode: 0o755, label: signed(t, s.key, "BEFORE"), want: Signed, labelled: true},
		"by another":         {content: "SCRIPT", mode: 0o755, label: other, want: Signed, labelled: true},
		"dry":                {content: "SCRIPT", mode: 0o755, dryRun: true, want: Signed},
		"not selected":       {content: "SCRIPT", mode: 0o644, select_: exec, want: NotSelected},
		"selected":           {content: "#!/bin/sh", mode: 0o644, select_: exec, want: Signed, labelled: true},
		"named, so selected": {content: "SCRIPT", mode: 0o644, select_: exec, named: true, want: Signed, labelled: true},
	} {
		t.Run(name, func(t *testing.T) {
			os.Remove(s.dir + "/f")
			s.write("f", c.content, c.mode)
			if c.label != nil {
				s.setLabel("f", c.label)
			}
			signer := &FileSigner{Key: s.key, Hash: sign.SHA256, Selection: c.select_, DryRun: c.dryRun}
			got, err := signer.Sign(context.Background(), s.system().Root, "f", c.named)
			if err != nil || got != c.want {
				t.Fatalf("%q, %v", got, err)
			}
			if c.labelled && !signer.holds(s.label("f"), digestOf(c.content)) {
				t.Errorf("label %x does not hold", s.label("f"))
			}
			if !c.labelled && !bytes.Equal(s.label("f"), c.label) {
				t.Error("the label was changed")
			}
		})
	}
}

func TestSignFileRefuses(t *testing.T) {
	s := newScene(t)
	s.write("target", "T", 0o755)
	s.symlink("target", "link")
	s.write("statement", "Format: imaseal-package-1\nPackage: x\n", 0o755)
	for path, want := range map[string]string{
		"link": "symbolic link to target", "statement": "statement", "none": "no such file",
	} {
		_, err := (&FileSigner{Key: s.key, Hash: sign.SHA256}).Sign(context.Background(), s.system().Root, path, true)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if s.label("target") != nil || s.label("statement") != nil {
		t.Error("labelled all the same")
	}
}

// A file that is written to while it is signed gets no label.
func TestSignFileNoticesAWriter(t *testing.T) {
	s := newScene(t)
	s.write("f", strings.Repeat("x", 600<<10), 0o755)
	written := false
	signer := &FileSigner{Key: s.key, Hash: sign.SHA256, Progress: func(_ int, bytes int64) {
		if bytes > 0 && !written {
			written = true
			s.write("f", "evil", 0o755)
		}
	}}
	if _, err := signer.Sign(context.Background(), s.system().Root, "f", true); err == nil || !written || s.label("f") != nil {
		t.Errorf("%v, written %v, label %x", err, written, s.label("f"))
	}
}
