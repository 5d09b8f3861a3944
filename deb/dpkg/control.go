package dpkg

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

// controlStage lets the real dpkg-deb unpack the control members, decides on the
// package before any of its code has run, and labels its maintainer scripts.
func (h *hook) controlStage() int {
	cmd, err := h.start(os.Stdout)
	if err != nil {
		complain("%v", err)
		return exitFailed
	}
	if status := wait(cmd); status != 0 {
		return status
	}
	if h.judge() == decideRefuse {
		return exitFailed
	}
	return 0
}

// judge decides on the package and labels its scripts. A decision that ends the matter
// is logged here; otherwise the other stage will.
func (h *hook) judge() decision {
	dir, err := openControl(h.adminDir)
	decided := decideRefuse
	if err != nil {
		decided = h.fail(err)
	} else {
		defer dir.Close()
		var s *seal
		if s, decided = h.decide(dir); decided == decideLabel {
			if err := h.labelScripts(dir, s); err != nil {
				decided = h.fail(err)
			}
		}
	}
	if decided == decideLabel {
		h.out.tell(h.system)
	} else {
		h.out.write(h.system)
	}
	return decided
}

// labelScripts labels the maintainer scripts in dir. dpkg renames them into its info
// database when it has unpacked the package, labels and all.
func (h *hook) labelScripts(dir *xattr.Root, s *seal) error {
	var unsupported error
	for _, e := range s.control {
		f, err := dir.Open(e.Path)
		if err == nil {
			err = f.Set(sign.XattrName, e.Value)
			f.Close()
		}
		if errors.Is(err, xattr.ErrUnsupported) && h.config.Unsupported == Warn {
			h.out.skip(e.Path, reasonUnsupported)
			unsupported = err
			continue
		}
		if err != nil {
			return fmt.Errorf("maintainer script %s: %w", e.Path, err)
		}
		h.out.Scripts++
	}
	if unsupported != nil {
		h.out.warn("maintainer scripts have no label: %v", unsupported)
	}
	return nil
}

// labelledScripts counts the scripts in dir that have their label.
func labelledScripts(dir *xattr.Root, s *seal) (n int) {
	for _, e := range s.control {
		f, err := dir.Open(e.Path)
		if err != nil {
			continue
		}
		if value, err := f.Get(sign.XattrName); err == nil && bytes.Equal(value, e.Value) {
			n++
		}
		f.Close()
	}
	return n
}
