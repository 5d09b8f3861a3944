package signtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imaseal/imaseal/sign"
)

// A seen is what a walk showed of one file.
type seen struct {
	Path, Link string
	Control    bool
	Mode       fs.FileMode
	Size       int64
	Recorded   string
	Hash       sign.Hash
	Class      sign.Class
	Content    string
}

// walk returns all files of p with their content. skip tells it to leave the
// content of the nth file unread from that byte on; nil reads all.
func walk(p sign.Package, skip func(n int) (bytes int, ok bool)) ([]seen, error) {
	var all []seen
	for f, err := range p.Files(context.Background()) {
		if err != nil {
			return all, err
		}
		s := seen{
			Path: f.Path, Link: f.Link, Control: f.Control, Mode: f.Mode, Size: f.Size,
			Recorded: string(f.Recorded), Hash: f.RecordedHash, Class: f.Class,
		}
		if f.Content != nil {
			content := f.Content
			if skip != nil {
				if n, ok := skip(len(all)); ok {
					content = io.LimitReader(content, int64(n))
				}
			}
			b, err := io.ReadAll(content)
			if err != nil {
				return all, fmt.Errorf("content of %q: %w", f.Path, err)
			}
			s.Content = string(b)
		}
		all = append(all, s)
	}
	return all, nil
}

func (s *subject) unsigned() error {
	p, err := s.open(s.raw)
	if err != nil {
		return err
	}
	m, err := p.Manifest()
	if err != nil || m != nil {
		return fmt.Errorf("calling Manifest returns %v, %v", m, err)
	}
	if p.Info().Name == "" || p.Info().Format == "" {
		return fmt.Errorf("Info names no package or no format: %+v", p.Info())
	}
	report, err := s.verify(s.raw, Trust(keys().ec), sign.Options{})
	if err != nil {
		return fmt.Errorf("calling Verify: %w", err)
	}
	if report.Signed != 0 || report.Files > 0 && report.OK() {
		return fmt.Errorf("calling Verify takes the unsigned package for a signed one: %+v", report)
	}
	return nil
}

func (s *subject) files() error {
	p, err := s.open(s.raw)
	if err != nil {
		return err
	}
	all, err := walk(p, nil)
	if err != nil {
		return err
	}
	payload, control := map[string]bool{}, map[string]bool{}
	for _, f := range all {
		names := payload
		if f.Control {
			names = control
		} else if len(control) > 0 {
			return fmt.Errorf("%q comes after control files", f.Path)
		}
		const allowed = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
		switch {
		case sign.CheckPath(f.Path) != nil:
			return sign.CheckPath(f.Path)
		case names[f.Path]:
			return fmt.Errorf("%q comes twice", f.Path)
		case f.Mode&^allowed != 0:
			return fmt.Errorf("%q has mode %v (%#o)", f.Path, f.Mode, uint32(f.Mode))
		case f.Link != "" && (!payload[f.Link] || f.Control):
			return fmt.Errorf("%q is a link to %q, which did not come before", f.Path, f.Link)
		case f.Link != "" && f.Content != "":
			return fmt.Errorf("%q is a link and has content", f.Path)
		case f.Link == "" && int64(len(f.Content)) != f.Size:
			return fmt.Errorf("%q has %d bytes of content, its size is %d", f.Path, len(f.Content), f.Size)
		case f.Recorded != "" && len(f.Recorded) != f.Hash.Size():
			return fmt.Errorf("%q records %d bytes by %s", f.Path, len(f.Recorded), f.Hash)
		}
		names[f.Path] = true
	}
	// The content of an empty file is a reader that ends, not none.
	for f, err := range p.Files(context.Background()) {
		if err != nil {
			return err
		}
		if f.Link == "" && f.Content == nil {
			return fmt.Errorf("%q is no link and has no content", f.Path)
		}
	}
	return nil
}

func (s *subject) repeat() error {
	p, err := s.open(s.raw)
	if err != nil {
		return err
	}
	first, err := walk(p, nil)
	if err != nil {
		return err
	}
	for range 2 {
		again, err := walk(p, nil)
		if err != nil {
			return fmt.Errorf("second walk: %w", err)
		}
		if diff := cmp.Diff(first, again); diff != "" {
			return fmt.Errorf("second walk differs: %s", diff)
		}
	}
	return nil
}

func (s *subject) stopEarly() error {
	p, err := s.open(s.raw)
	if err != nil {
		return err
	}
	want, err := walk(p, nil)
	if err != nil {
		return err
	}
	before := runtime.NumGoroutine()
	for stop := range min(len(want), 20) {
		n := 0
		for f, err := range p.Files(context.Background()) {
			if err != nil {
				return err
			}
			if f.Content != nil {
				io.CopyN(io.Discard, f.Content, 1)
			}
			if n++; n > stop {
				break
			}
		}
		got, err := walk(p, nil)
		if err != nil {
			return fmt.Errorf("walk after one that was left at file %d: %w", stop, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("walk after one that was left at file %d differs: %s", stop, diff)
		}
	}
	for deadline := time.Now().Add(2 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d goroutines were left behind", runtime.NumGoroutine()-before)
		}
	}
	return nil
}

func (s *subject) leaveUnread() error {
	p, err := s.open(s.raw)
	if err != nil {
		return err
	}
	want, err := walk(p, nil)
	if err != nil {
		return err
	}
	ways := map[string]func(n int) (int, bool){
		"nothing read":      func(int) (int, bool) { return 0, true },
		"one byte read":     func(int) (int, bool) { return 1, true },
		"half of them read": func(n int) (int, bool) { return 0, n%2 == 0 },
		"others read":       func(n int) (int, bool) { return 1, n%2 == 1 },
	}
	for name, skip := range ways {
		got, err := walk(p, skip)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if len(got) != len(want) {
			return fmt.Errorf("%s: %d files, not %d", name, len(got), len(want))
		}
		for i, w := range want {
			if n, ok := skip(i); ok {
				w.Content = w.Content[:min(n, len(w.Content))]
			}
			if diff := cmp.Diff(w, got[i]); diff != "" {
				return fmt.Errorf("%s: %q differs: %s", name, w.Path, diff)
			}
		}
	}
	return nil
}

// readLate reads a file's content when the walk is one step further, where it
// must not give another file's bytes.
func (s *subject) readLate() error {
	p, err := s.open(s.raw)
	if err != nil {
		return err
	}
	want, err := walk(p, nil)
	if err != nil {
		return err
	}
	late := func(r io.Reader, path, when string) error {
		if r == nil {
			return nil
		}
		if n, err := io.ReadFull(r, make([]byte, 1)); n > 0 || err == nil {
			return fmt.Errorf("content of %q can still be read %s", path, when)
		}
		return nil
	}
	var last io.Reader
	path := ""
	for f, err := range p.Files(context.Background()) {
		if err != nil {
			return err
		}
		if err := late(last, path, "at the next file"); err != nil {
			return err
		}
		last, path = f.Content, f.Path
	}
	if err := late(last, path, "after the walk"); err != nil {
		return err
	}
	for f := range p.Files(context.Background()) {
		last, path = f.Content, f.Path
		break
	}
	if err := late(last, path, "after a walk that stopped early"); err != nil {
		return err
	}
	// The late reads must not have taken anything from the files they fell in.
	n := 0
	for f, err := range p.Files(context.Background()) {
		if err != nil {
			return err
		}
		if last != nil {
			last.Read(make([]byte, 1))
		}
		if last = f.Content; last != nil {
			content, err := io.ReadAll(last)
			if err != nil {
				return err
			}
			if !bytes.Equal(content, []byte(want[n].Content)) {
				return fmt.Errorf("a late read changed the content of %q", f.Path)
			}
		}
		n++
	}
	return nil
}
