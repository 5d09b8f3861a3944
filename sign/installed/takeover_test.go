package installed

import (
	"bytes"
	"testing"
)

func TestFilesThatAnotherPackageTookOver(t *testing.T) {
	takeOver := func(s *scene) *Package {
		s.db[1].Files[1].Unlisted = true // sshd
		return s.install("newssh", map[string]string{"usr/sbin/sshd": "NEW"})
	}
	t.Run("signed", func(t *testing.T) {
		s := checkScene(t)
		old := s.label("usr/sbin/sshd")
		p := takeOver(s)
		wantFindings(t, s.apply(ApplyOptions{Keys: s.keys, Replace: true}, "ssh"))
		if s.label("usr/sbin/sshd") != nil && !bytes.Equal(s.label("usr/sbin/sshd"), old) {
			t.Error("apply of the old owner set a label")
		}
		wantFindings(t, s.apply(ApplyOptions{Keys: s.keys, Replace: true}))
		if !bytes.Equal(s.label("usr/sbin/sshd"), p.Files[0].Value) {
			t.Error("the new owner's label is not there")
		}
		wantFindings(t, s.check(CheckOptions{}))
		wantFindings(t, s.check(CheckOptions{}, "ssh"))
		wantFindings(t, s.clear(ClearOptions{}, "ssh"))
		if s.label("usr/sbin/sshd") == nil {
			t.Error("clear of the old owner took the label of the new one")
		}
		// The old file put back is not the one that belongs there.
		s.write("usr/sbin/sshd", "SSHD", 0o755)
		s.setLabel("usr/sbin/sshd", old)
		r := s.check(CheckOptions{}, "newssh")
		wantFindings(t, r, "wrong name /usr/sbin/sshd")
	})
	t.Run("by an unsigned one", func(t *testing.T) {
		s := checkScene(t)
		p := takeOver(s)
		p.Signed, p.Verify, p.Files[0].Value = false, nil, nil
		s.clearLabel("usr/sbin/sshd")
		wantFindings(t, s.check(CheckOptions{}), "taken over /usr/sbin/sshd")
		wantFindings(t, s.apply(ApplyOptions{Keys: s.keys}, "ssh"))
	})
	t.Run("by nobody", func(t *testing.T) {
		s := checkScene(t)
		s.db[1].Files[1].Unlisted = true
		wantFindings(t, s.check(CheckOptions{}))
		s.write("usr/sbin/sshd", "EVIL", 0o755)
		wantFindings(t, s.check(CheckOptions{}), "digest mismatch /usr/sbin/sshd")
	})
}
