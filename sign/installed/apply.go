package installed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

// Conffiles says which configuration files are labelled, in the words of the
// installer hook's configuration.
type Conffiles string

// The rules for configuration files. A signature locks a file that people edit, so that
// only those are labelled by default which the kernel would refuse to execute.
const (
	ConffilesExecutable Conffiles = "executable"
	ConffilesAll        Conffiles = "all"
	ConffilesNone       Conffiles = "none"
)

// ApplyOptions say which labels are set.
type ApplyOptions struct {
	// Keys, if not nil, are trusted: signatures are verified by them before anything
	// is labelled. Otherwise the content is compared with the digests that the
	// database records.
	Keys *sign.TrustedKeys
	// UnknownKeys says that packages signed by a key that is not among Keys are
	// labelled all the same, after a comparison with the digests of the database.
	UnknownKeys bool
	// Replace says that a label that another key made is replaced by the package's
	// signature, once that was verified by Keys over the present content. The value
	// changes in one step: there is no moment without a label. Where several packages
	// have the file, as instances for several architectures do, a label that is the
	// signature of one of them, and verifies, stays.
	Replace bool
	// Finds, if not nil, reports whether the kernel that the system runs on finds the
	// key of an id. A signature is not replaced by one whose key it would not find.
	Finds func(sign.KeyID) bool
	// Conffiles is one of ConffilesExecutable, which is the default, ConffilesAll and
	// ConffilesNone.
	Conffiles Conffiles
	// DryRun says that everything is done but setting labels.
	DryRun bool
}

// Apply sets the labels that are missing on the files of the installed packages
// called names, all when there are none. A file is labelled only after its content
// was found to be what the signature is over, or what the database records.
func (s *System) Apply(ctx context.Context, names []string, o ApplyOptions) (*Result, error) {
	selected, others, errs, err := s.choose(ctx, names)
	if err != nil {
		return nil, err
	}
	a := &applying{system: s, options: o, owners: s.ownersOf(selected, others)}
	result := &Result{Errors: errs}
	var tasks []task
	for _, p := range selected {
		report := &Report{Package: p}
		result.Reports = append(result.Reports, report)
		recorded, ok := a.admit(report)
		if !ok {
			continue
		}
		for i := range p.Files {
			if p.Files[i].Value != nil {
				tasks = append(tasks, task{report: report, file: &p.Files[i], recordedOnly: recorded})
			}
		}
	}
	if len(tasks) > 0 && !o.DryRun {
		if err := s.Root.Probe(sign.XattrName, tasks[0].file.Value); err != nil {
			return nil, err
		}
	}
	return result, s.run(ctx, tasks, a.file)
}

// An applying is what Apply has worked out.
type applying struct {
	system  *System
	options ApplyOptions
	owners  *owners
}

// admit decides whether the files of a package are labelled, and whether for want of
// a key by the digests that the database records.
func (a *applying) admit(r *Report) (recordedOnly, ok bool) {
	p := r.Package
	switch {
	case p.Malformed != nil:
		r.find("", KindMalformed, p.Malformed.Error())
		return false, false
	case !p.Signed:
		return false, false
	case a.options.Keys == nil:
		return true, true
	case p.Verify == nil:
		return a.options.UnknownKeys && a.foreign(p), true
	}
	err := p.Verify(a.options.Keys)
	switch {
	case err == nil:
		return false, true
	case !errors.Is(err, sign.ErrUnknownKey):
		r.find("", KindStatement, err.Error())
		return false, false
	case a.options.UnknownKeys:
		return true, true
	default:
		r.find("", KindUnknownKey, err.Error())
		return false, false
	}
}

// foreign reports whether all signatures of p are by keys that are not trusted.
func (a *applying) foreign(p *Package) bool {
	return !slices.ContainsFunc(p.Files, func(f File) bool {
		if f.Value == nil {
			return false
		}
		sig, err := sign.ParseSignature(f.Value)
		return err != nil || !errors.Is(a.options.Keys.VerifyDigest(sig, nil), sign.ErrUnknownKey)
	})
}

// file labels one file.
func (a *applying) file(w *worker, t *task) {
	if _, ok := a.owners.taken(t.file); ok {
		return
	}
	f, err := a.system.Root.Open(t.file.Path)
	switch {
	case err == nil:
		defer f.Close()
	case absent(err):
		if !t.file.Optional {
			t.find(KindMissing, "")
		}
		return
	case errors.Is(err, xattr.ErrNotRegular):
		t.find(KindNotRegular, kindOf(a.system.Root, t.file.Path))
		return
	default:
		t.find(KindError, reason(err, a.system.Root, t.file.Path))
		return
	}
	label, err := f.Get(sign.XattrName)
	if err != nil && !errors.Is(err, xattr.ErrUnsupported) {
		t.find(KindError, reason(err, a.system.Root, t.file.Path))
		return
	}
	if bytes.Equal(label, t.file.Value) {
		t.counted = true
		t.labelled = t.recordedOnly && t.file.Digest == nil || a.judge(w, t, f, true)
		return
	}
	if t.file.Config && !takesConffile(a.options.Conffiles, f) {
		return
	}
	t.counted = true
	if isSignature(label) && a.keep(w, t, f, label) {
		return
	}
	if !a.judge(w, t, f, false) {
		return
	}
	if t.changed = true; a.options.DryRun {
		return
	}
	switch err := setLabel(f, label, t.file.Value); {
	case errors.Is(err, xattr.ErrFileSystem):
		t.changed = false
		t.find(KindUnsupported, "")
	case errors.Is(err, errChanging):
		t.changed = false
		t.find(KindChanging, err.Error())
	case err != nil:
		t.changed = false
		t.find(KindError, reason(err, a.system.Root, t.file.Path))
	default:
		t.labelled = true
	}
}

// keep reports whether a file keeps the signature that it carries, which is not that
// of t.
func (a *applying) keep(w *worker, t *task, f *xattr.File, label []byte) bool {
	shared := among(label, a.owners.values(t.file.Path))
	switch {
	case shared && (!a.options.Replace || a.holds(w, f, label)):
		t.labelled = true
		return true
	case sameKey(label, t.file.Value):
		return false // it is as good as the package's, or stale
	case !a.options.Replace:
		t.find(KindKept, fmt.Sprintf("it carries a signature by key %s, which --replace would replace", keyOf(label)))
		return true
	case t.recordedOnly:
		// The content is what the database says, but nobody knows whether the kernel
		// would find the key.
		t.find(KindKept, fmt.Sprintf("it carries a signature by key %s, which is replaced only by one that a certificate is for: give that of key %s (--cert)", keyOf(label), keyOf(t.file.Value)))
		return true
	}
	if sig, err := sign.ParseSignature(t.file.Value); err == nil && a.options.Finds != nil && !a.options.Finds(sig.KeyID) {
		t.find(KindKept, fmt.Sprintf("it carries a signature by key %s, and this kernel would not find key %s, by which it would be replaced: load that certificate first", keyOf(label), sig.KeyID))
		return true
	}
	return false
}

// holds reports whether a trusted key made label over the content of f.
func (a *applying) holds(w *worker, f *xattr.File, label []byte) bool {
	sig, err := sign.ParseSignature(label)
	if err != nil || a.options.Keys == nil || !a.options.Keys.Has(sig.KeyID) {
		return false
	}
	found, err := w.digest(f, sig.Hash)
	return err == nil && a.options.Keys.VerifyDigest(sig, found[sig.Hash]) == nil
}

// takesConffile reports whether the rule wants a configuration file to be labelled.
func takesConffile(rule Conffiles, f *xattr.File) bool {
	switch rule {
	case ConffilesAll:
		return true
	case ConffilesNone:
		return false
	default:
		return executable(f)
	}
}

// judge reports whether the content of f is the one that its signature is over, and
// so whether the label is set, or is right where f has it already.
func (a *applying) judge(w *worker, t *task, f *xattr.File, labelled bool) bool {
	sig, err := sign.ParseSignature(t.file.Value)
	if err != nil {
		t.find(KindMalformed, err.Error())
		return false
	}
	if t.recordedOnly && t.file.Digest == nil {
		t.find(KindUnjudged, "the database records no digest of it: give the certificate of key "+sig.KeyID.String()+" (--cert)")
		return false
	}
	by := sig.Hash
	if t.recordedOnly {
		by = t.file.Hash
	}
	found, err := w.digest(f, by)
	switch {
	case errors.Is(err, errChanging):
		t.find(KindChanging, err.Error())
		return false
	case unreadable(err):
		t.find(KindMismatch, "the kernel does not let it be read")
		return false
	case err != nil:
		t.find(KindError, reason(err, a.system.Root, t.file.Path))
		return false
	}
	if t.recordedOnly {
		err = compareRecorded(t.file, found)
	} else {
		err = a.options.Keys.VerifyDigest(sig, found[sig.Hash])
	}
	switch {
	case err == nil:
		return true
	case errors.Is(err, sign.ErrUnknownKey):
		t.find(KindUnknownKey, err.Error())
	case t.file.Config && labelled:
		t.find(KindStale, "it was edited and its label no longer holds: imaseal sign-file signs it with a key of your own")
	case t.file.Config:
		t.find(KindEdited, "its signature would not hold; imaseal sign-file signs it with a key of your own")
	default:
		t.find(KindMismatch, "the content is not what its signature is over")
	}
	return false
}

// compareRecorded compares the content with the digest that the database records.
func compareRecorded(f *File, found sums) error {
	if f.Digest == nil || !bytes.Equal(found[f.Hash], f.Digest) {
		return fmt.Errorf("its %s is %x, the database records %x", f.Hash, found[f.Hash], f.Digest)
	}
	return nil
}
