package signtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/imaseal/imaseal/sign"
)

func (s *subject) signAndRead() error {
	return both(func(key *sign.Signer) error {
		signed, m, err := s.sign(s.raw, key, sign.Options{Jobs: 2})
		if err != nil {
			return err
		}
		p, err := s.open(signed)
		if err != nil {
			return err
		}
		got, err := p.Manifest()
		if err != nil {
			return fmt.Errorf("calling Manifest: %w", err)
		}
		if diff := cmp.Diff(m, got, cmpopts.EquateEmpty()); diff != "" {
			return fmt.Errorf("the manifest that was written differs from the one read: %s", diff)
		}
		report, err := s.verify(signed, Trust(key), sign.Options{Jobs: 2})
		if err != nil {
			return fmt.Errorf("calling Verify: %w", err)
		}
		if !report.OK() || report.Signed != report.Files || report.Signed != len(m.Files)+len(m.Control) {
			return fmt.Errorf("calling Verify with the key: %+v", report)
		}
		report, err = s.verify(signed, Trust(keys().other), sign.Options{Jobs: 2})
		if err != nil {
			return fmt.Errorf("calling Verify with another key: %w", err)
		}
		if report.Files > 0 && report.OK() {
			return fmt.Errorf("another key takes the signatures for its own: %+v", report)
		}
		return s.samePayload(signed)
	})
}

// samePayload checks that signed has the files of the original.
func (s *subject) samePayload(signed []byte) error {
	var walks [2][]seen
	for i, raw := range [][]byte{s.raw, signed} {
		p, err := s.open(raw)
		if err != nil {
			return err
		}
		if walks[i], err = walk(p, nil); err != nil {
			return err
		}
	}
	if diff := cmp.Diff(walks[0], walks[1]); diff != "" {
		return fmt.Errorf("the signed package has other files: %s", diff)
	}
	return nil
}

// changed takes entries of a signed package away, swaps and alters them.
func (s *subject) changed() error {
	key := keys().ec
	p, err := s.open(s.raw)
	if err != nil {
		return err
	}
	good, err := sign.Sign(context.Background(), p, key, sign.Options{})
	if err != nil {
		return err
	}
	if len(good.Files) == 0 {
		return nil
	}
	ways := map[string]func(files []sign.Entry) []sign.Entry{
		"first entry dropped": func(files []sign.Entry) []sign.Entry { return files[1:] },
		"last entry dropped":  func(files []sign.Entry) []sign.Entry { return files[:len(files)-1] },
		"signature altered": func(files []sign.Entry) []sign.Entry {
			files[0].Value = bytes.Clone(files[0].Value)
			files[0].Value[len(files[0].Value)-1] ^= 1
			return files
		},
		"key id altered": func(files []sign.Entry) []sign.Entry {
			files[0].Value = bytes.Clone(files[0].Value)
			files[0].Value[3] ^= 1
			return files
		},
		"signatures swapped": func(files []sign.Entry) []sign.Entry {
			last := len(files) - 1
			if bytes.Equal(files[0].Value, files[last].Value) {
				return nil
			}
			files[0].Value, files[last].Value = files[last].Value, files[0].Value
			return files
		},
	}
	for name, change := range ways {
		files := change(slices.Clone(good.Files))
		if files == nil {
			continue
		}
		written, err := s.write(p, &sign.Manifest{Files: files, Control: good.Control, Statement: good.Statement})
		if err != nil {
			continue // refused, which is as good
		}
		report, err := s.verify(written, Trust(key), sign.Options{})
		if err != nil {
			return fmt.Errorf("%s: Verify: %w", name, err)
		}
		if report.OK() {
			return fmt.Errorf("%s: Verify says ok: %+v", name, report)
		}
	}
	return nil
}

func (s *subject) selection() error {
	p, err := s.open(s.raw)
	if err != nil {
		return err
	}
	all, err := walk(p, nil)
	if err != nil || len(all) == 0 || all[0].Control {
		return err
	}
	// One file alone, by its name; every glob character in it is taken literally.
	glob := "/"
	for _, c := range []byte(all[0].Path) {
		if bytes.IndexByte([]byte(`*?[\`), c) >= 0 {
			glob += `\`
		}
		glob += string([]byte{c})
	}
	selection, err := sign.NewSelection([]string{glob}, nil)
	if err != nil {
		return nil // a name that no selection can hold
	}
	key := keys().ec
	signed, m, err := s.sign(s.raw, key, sign.Options{Selection: selection})
	if err != nil {
		return err
	}
	if len(m.Files) != 1 || m.Files[0].Path != all[0].Path {
		return fmt.Errorf("selection %q signs %d files", glob, len(m.Files))
	}
	report, err := s.verify(signed, Trust(key), sign.Options{Selection: selection})
	if err != nil {
		return err
	}
	if !report.OK() {
		return fmt.Errorf("calling Verify of the selection: %+v", report)
	}
	everything := sign.Options{Selection: sign.Selection{Select: []string{sign.SelectAll}}}
	if report, err = s.verify(signed, Trust(key), everything); err != nil {
		return err
	}
	if report.OK() != (report.Signed == report.Files) {
		return fmt.Errorf("calling Verify of all files where %d of %d are signed: %+v", report.Signed, report.Files, report)
	}
	return nil
}

func (s *subject) deterministic() error {
	return both(func(key *sign.Signer) error {
		first, _, err := s.sign(s.raw, key, sign.Options{})
		if err != nil {
			return err
		}
		for _, jobs := range []int{1, 2, 7, 64} {
			again, m, err := s.sign(s.raw, key, sign.Options{Jobs: jobs})
			if err != nil {
				return err
			}
			if !bytes.Equal(first, again) {
				return fmt.Errorf("other bytes with %d jobs", jobs)
			}
			// The same manifest into the package that already carries it.
			p, err := s.open(first)
			if err != nil {
				return err
			}
			o := s.Write
			o.Force = true
			var b bytes.Buffer
			if err := p.Write(context.Background(), &b, m, o); err != nil {
				return fmt.Errorf("writing the manifest again: %w", err)
			}
			if !bytes.Equal(first, b.Bytes()) {
				return errors.New("writing the manifest again gives other bytes")
			}
		}
		return nil
	})
}

func (s *subject) unsign() error {
	p, err := s.open(s.raw)
	if err != nil {
		return err
	}
	copied, err := s.write(p, nil)
	if err != nil {
		return err
	}
	if !bytes.Equal(copied, s.raw) {
		return errors.New("unsigning the unsigned package changes it")
	}
	return both(func(key *sign.Signer) error {
		signed, _, err := s.sign(s.raw, key, sign.Options{})
		if err != nil {
			return err
		}
		p, err := s.open(signed)
		if err != nil {
			return err
		}
		original, err := s.write(p, nil)
		if err != nil {
			return err
		}
		if !bytes.Equal(original, s.raw) {
			return fmt.Errorf("%d bytes instead of the original %d, or others", len(original), len(s.raw))
		}
		return nil
	})
}

func (s *subject) failingWriter() error {
	signed, m, err := s.sign(s.raw, keys().ec, sign.Options{})
	if err != nil {
		return err
	}
	for _, c := range []struct {
		name     string
		from     []byte
		manifest *sign.Manifest
		size     int
	}{{"sign", s.raw, m, len(signed)}, {"unsign", signed, nil, len(s.raw)}} {
		p, err := s.open(c.from)
		if err != nil {
			return err
		}
		for _, n := range offsets(c.size, 64) {
			err := p.Write(context.Background(), &failingWriter{n}, c.manifest, s.Write)
			if !errors.Is(err, errInjected) {
				return fmt.Errorf("%s: writer that fails at byte %d: Write returns %v", c.name, n, err)
			}
		}
		// What was left behind must not spoil the next try.
		var b bytes.Buffer
		if err := p.Write(context.Background(), &b, c.manifest, s.Write); err != nil || b.Len() != c.size {
			return fmt.Errorf("%s after failures: %d bytes instead of %d, %v", c.name, b.Len(), c.size, err)
		}
	}
	return nil
}

func (s *subject) failingReader() error {
	signed, _, err := s.sign(s.raw, keys().ec, sign.Options{})
	if err != nil {
		return err
	}
	for name, raw := range map[string][]byte{"unsigned": s.raw, "signed": signed} {
		for _, n := range offsets(len(raw), 64) {
			p, err := s.Open(failingReader{raw, n}, int64(len(raw)))
			if err != nil {
				continue
			}
			if _, err = walk(p, nil); err == nil {
				_, err = p.Manifest()
			}
			if err == nil {
				err = p.Write(context.Background(), io.Discard, nil, s.Write)
			}
			if err == nil {
				return fmt.Errorf("%s package whose bytes from %d on cannot be read: no error", name, n)
			}
		}
	}
	return nil
}

func (s *subject) cancelled() error {
	signed, m, err := s.sign(s.raw, keys().ec, sign.Options{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for name, raw := range map[string][]byte{"unsigned": s.raw, "signed": signed} {
		p, err := s.open(raw)
		if err != nil {
			return err
		}
		err = nil
		for f, failed := range p.Files(ctx) {
			if err != nil {
				return fmt.Errorf("%s: the walk goes on after an error", name)
			}
			if failed == nil {
				return fmt.Errorf("%s: a cancelled walk shows %q", name, f.Path)
			}
			err = failed
		}
		if !errors.Is(err, context.Canceled) {
			return fmt.Errorf("%s: a cancelled walk ends with %v", name, err)
		}
		if err := p.Write(ctx, io.Discard, m, s.Write); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("%s: a cancelled Write returns %v", name, err)
		}
		if err := p.Write(ctx, io.Discard, nil, s.Write); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("%s: a cancelled Write of the original returns %v", name, err)
		}
		if _, err := sign.Sign(ctx, p, keys().ec, sign.Options{}); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("%s: a cancelled Sign returns %v", name, err)
		}
		if _, err := sign.Verify(ctx, p, Trust(keys().ec), sign.Options{}); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("%s: a cancelled Verify returns %v", name, err)
		}
		if err := cancelOnTheWay(p); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// cancelOnTheWay cancels at the first file: no other may come.
func cancelOnTheWay(p sign.Package) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n := 0
	for f, err := range p.Files(ctx) {
		switch {
		case err == nil && n > 0:
			return fmt.Errorf("the walk goes on to %q after it was cancelled", f.Path)
		case err == nil:
			cancel()
			n++
		case !errors.Is(err, context.Canceled):
			return fmt.Errorf("a walk that was cancelled on its way ends with %w", err)
		}
	}
	return nil
}

// damaged flips bytes. Whether that matters is the format's affair; a panic or a
// walk without end is not.
func (s *subject) damaged() error {
	signed, _, err := s.sign(s.raw, keys().ec, sign.Options{})
	if err != nil {
		return err
	}
	for _, raw := range [][]byte{s.raw, signed} {
		for _, n := range offsets(len(raw), 128) {
			for _, flip := range []byte{0x01, 0x80, 0xff} {
				bad := bytes.Clone(raw)
				bad[n] ^= flip
				s.exercise(bad)
			}
			s.exercise(raw[:n])
		}
	}
	return nil
}

func (s *subject) exercise(raw []byte) {
	p, err := s.open(raw)
	if err != nil {
		return
	}
	p.Info()
	p.Anomalies()
	p.Details()
	for _, o := range p.OpenPGP() {
		if o.Signed != nil {
			io.Copy(io.Discard, o.Signed())
		}
	}
	ctx := context.Background()
	sign.Verify(ctx, p, Trust(keys().ec), sign.Options{})
	p.Write(ctx, io.Discard, nil, s.Write)
}
