package installed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

// CheckOptions say what is checked.
type CheckOptions struct {
	// Keys are those that are trusted.
	Keys *sign.TrustedKeys
	// Conffiles says which configuration files have to be labelled, as
	// [ApplyOptions] has it.
	Conffiles Conffiles
	// Unowned says that files in executable places that belong to no package are
	// looked for.
	Unowned bool
}

// Check compares the files of the installed packages called names, of all when there
// are none, with what was signed: that the database is what the packages brought,
// that each file has the content that is signed under its name, and that it carries
// a label that the kernel will take. Files of packages that are not signed are
// looked at for labels that they should not carry.
//
// A signature is over a content and not over a name. So a file whose content is not
// its own is looked up among all signatures of the system, to say whose it is.
func (s *System) Check(ctx context.Context, names []string, o CheckOptions) (*Result, error) {
	all, errs, err := s.read(ctx, nil)
	if err != nil {
		return nil, err
	}
	selected := all
	if len(names) > 0 {
		if selected, errs, err = s.read(ctx, names); err != nil {
			return nil, err
		}
		all = merge(selected, all)
	}
	owners := s.ownersOf(all)
	c := &checking{system: s, options: o, owners: owners, index: owners.index(all)}
	result := &Result{Errors: errs}
	var tasks []task
	for _, p := range selected {
		report := &Report{Package: p}
		result.Reports = append(result.Reports, report)
		c.database(report)
		for i := range p.Files {
			tasks = append(tasks, task{report: report, file: &p.Files[i]})
		}
	}
	if err := s.run(ctx, tasks, c.file); err != nil {
		return nil, err
	}
	reportUnknownKeys(tasks)
	if o.Unowned {
		report, err := c.unowned(ctx)
		if err != nil {
			return nil, err
		}
		result.Reports = append(result.Reports, report)
	}
	return result, nil
}

// merge returns all packages, those that were selected as they are in selected.
func merge(selected, all []*Package) []*Package {
	known := map[packageKey]bool{}
	for _, p := range selected {
		known[p.key()] = true
	}
	merged := slices.Clone(selected)
	for _, p := range all {
		if !known[p.key()] {
			merged = append(merged, p)
		}
	}
	return merged
}

// reportUnknownKeys adds one finding for each key of a package that is not trusted: it
// is one fact, not one for each file.
func reportUnknownKeys(tasks []task) {
	type foreign struct {
		report *Report
		key    string
	}
	count := map[foreign]int{}
	var order []foreign
	for i := range tasks {
		if t := &tasks[i]; t.unknown != "" {
			f := foreign{t.report, t.unknown}
			if count[f]++; count[f] == 1 {
				order = append(order, f)
			}
		}
	}
	for _, f := range order {
		f.report.find("", KindUnknownKey, fmt.Sprintf("%d of its signatures are by key %s, which no certificate given is for", count[f], f.key))
	}
}

// A checking is what Check has worked out.
type checking struct {
	system  *System
	options CheckOptions
	owners  *owners
	index   *index
}

// database judges what the database holds of the package.
func (c *checking) database(r *Report) {
	p := r.Package
	if p.Malformed != nil {
		r.find("", KindMalformed, p.Malformed.Error())
		return
	}
	if !p.Signed || p.Verify == nil {
		return
	}
	// That of an unknown key is said once, with the number of its signatures.
	if err := p.Verify(c.options.Keys); err != nil && !errors.Is(err, sign.ErrUnknownKey) {
		r.find("", KindStatement, err.Error())
	}
}

// file judges one file.
func (c *checking) file(w *worker, t *task) {
	if by, ok := c.owners.taken(t.file); ok {
		if by.file.Value == nil {
			t.find(KindTaken, "the package signs it, but "+by.pkg.ID()+" has taken it over and does not")
		}
		return
	}
	if t.file.Script && t.file.Value == nil && t.report.Package.Signed && t.report.Package.Malformed == nil {
		t.find(KindUnsigned, "it was not in the package, and will be executed as root")
	}
	f, err := c.system.Root.Open(t.file.Path)
	switch {
	case err == nil:
		defer f.Close()
	case absent(err):
		c.missing(t)
		return
	case errors.Is(err, xattr.ErrNotRegular):
		if t.file.Value != nil {
			t.find(KindNotRegular, kindOf(c.system.Root, t.file.Path))
		}
		return
	default:
		t.find(KindError, reason(err, c.system.Root, t.file.Path))
		return
	}
	label, err := f.Get(sign.XattrName)
	if err != nil && !errors.Is(err, xattr.ErrUnsupported) {
		t.find(KindError, reason(err, c.system.Root, t.file.Path))
		return
	}
	if !isSignature(label) {
		label = nil
	}
	if t.file.Value == nil && label == nil {
		return
	}
	noLabels := errors.Is(err, xattr.ErrFileSystem)
	t.counted = t.file.Value != nil
	l, err := c.look(w, t.file, f, label)
	switch {
	case errors.Is(err, errChanging):
		t.find(KindChanging, err.Error())
	case unreadable(err):
		t.find(KindMismatch, "the kernel does not let it be read")
	case err != nil:
		t.find(KindError, reason(err, c.system.Root, t.file.Path))
	case t.file.Value == nil:
		c.unsigned(t, l)
	default:
		l.noLabels = noLabels
		c.signed(t, f, l)
	}
}

func (c *checking) missing(t *task) {
	switch {
	case t.file.Value == nil:
	case t.file.Config:
		t.find(KindDeleted, "")
	case !t.file.Optional:
		t.find(KindMissing, "")
	}
}

// A look is what is known of a file after its content was read.
type look struct {
	label    []byte // the signature that it carries, nil when none
	noLabels bool   // there can be none: the file system takes none
	labelBy  error  // nil when a trusted key made the label over this content
	// own says that the content is the package's own; ownBy is why it can't be told
	// by the signature, when the key is unknown.
	own   bool
	ownBy error
	key   string // of the package's signature
}

// look reads the content of f and judges it by the signature that the package has
// for the file and by the one that it carries.
func (c *checking) look(w *worker, file *File, f *xattr.File, label []byte) (*look, error) {
	l := &look{label: label}
	value, valueErr := sign.ParseSignature(file.Value)
	carried, carriedErr := sign.ParseSignature(label)
	hashes := []sign.Hash{value.Hash, carried.Hash}
	if file.Value == nil || !c.options.Keys.Has(value.KeyID) {
		hashes = append(hashes, file.Hash) // the content is judged by what the database records
	}
	found, err := w.digest(f, hashes...)
	if err != nil {
		return nil, err
	}
	l.key = value.KeyID.String()
	switch {
	case file.Value == nil:
		l.own = compareRecorded(file, found) == nil
	case valueErr != nil:
		l.ownBy = valueErr
	default:
		l.ownBy = c.options.Keys.VerifyDigest(value, found[value.Hash])
		l.own = l.ownBy == nil
		if errors.Is(l.ownBy, sign.ErrUnknownKey) {
			l.own = file.Digest == nil || compareRecorded(file, found) == nil
		}
	}
	switch {
	case label == nil:
	case carriedErr != nil:
		l.labelBy = carriedErr
	case bytes.Equal(label, file.Value):
		l.labelBy = l.ownBy
	default:
		l.labelBy = c.options.Keys.VerifyDigest(carried, found[carried.Hash])
	}
	return l, nil
}

// signed judges a file that its package signs.
func (c *checking) signed(t *task, f *xattr.File, l *look) {
	if errors.Is(l.ownBy, sign.ErrUnknownKey) {
		t.unknown = l.key
	}
	if !l.own {
		c.changed(t, f, l)
		return
	}
	switch {
	case l.label == nil:
		if t.file.Config && !takesConffile(c.options.Conffiles, f) {
			t.counted = false
			return
		}
		if l.noLabels {
			t.find(KindUnsupported, "")
			return
		}
		t.find(KindUnlabelled, "")
	case bytes.Equal(l.label, t.file.Value), among(l.label, c.owners.values(t.file.Path)) && l.labelBy == nil:
		t.labelled = true
	case l.labelBy == nil && sameKey(l.label, t.file.Value):
		t.labelled = true // made another time, or for another package that has the file too
	case l.labelBy == nil:
		t.labelled = true
		t.find(KindOtherKey, "labelled by key "+keyOf(l.label)+", the package's is "+l.key)
	case errors.Is(l.labelBy, sign.ErrUnknownKey):
		t.find(KindUnknownKey, "labelled by key "+keyOf(l.label)+", which no certificate given is for; imaseal apply --replace sets the package's signature")
	default:
		t.find(KindBadSignature, "its label does not hold: "+l.labelBy.Error())
	}
}

// changed judges a file whose content is not the one that its package signs.
func (c *checking) changed(t *task, f *xattr.File, l *look) {
	own := c.owners.values(t.file.Path)
	if l.label != nil && !among(l.label, own) && (l.labelBy == nil || errors.Is(l.labelBy, sign.ErrUnknownKey)) {
		if o, ok := c.index.find(l.label); ok {
			t.find(KindWrongName, isFile(l, o))
			return
		}
	}
	switch {
	case t.file.Config && l.label == nil && executable(f):
		t.find(KindEdited, "executable, and not signed: imaseal sign-file signs it with a key of your own")
	case t.file.Config && l.label == nil:
		t.counted = takesConffile(c.options.Conffiles, f)
		t.find(KindEdited, "")
	case t.file.Config && l.labelBy == nil:
		t.labelled = true
		t.find(KindEdited, "signed by key "+keyOf(l.label))
	case t.file.Config:
		t.find(KindStale, "it was edited and its label no longer holds: imaseal sign-file signs it with a key of your own")
	case l.label != nil && l.labelBy == nil:
		t.find(KindForeign, "validly signed by key "+keyOf(l.label)+", but no installed package has it: another version, another package or a local file")
	default:
		t.find(KindMismatch, "the content is not what the package signs under this name")
	}
}

// unsigned judges a file that carries a label though its package signs none for it.
func (c *checking) unsigned(t *task, l *look) {
	if values := c.owners.values(t.file.Path); l.labelBy == nil && among(l.label, values) {
		return
	}
	if o, ok := c.index.find(l.label); ok && !l.own && (l.labelBy == nil || errors.Is(l.labelBy, sign.ErrUnknownKey)) {
		t.find(KindWrongName, isFile(l, o))
		return
	}
	switch {
	case t.report.Package.Malformed != nil:
	case l.labelBy == nil:
		t.find(KindLocal, "signed by key "+keyOf(l.label)+", though not by its package")
	default:
		t.find(KindExtra, l.labelBy.Error())
	}
}

func isFile(l *look, o owner) string {
	if l.labelBy != nil {
		return fmt.Sprintf("it carries the signature of %s of %s, by key %s, which no certificate given is for", o.file.Shown(), o.pkg.ID(), keyOf(l.label))
	}
	return fmt.Sprintf("validly signed, but it is %s of %s", o.file.Shown(), o.pkg.ID())
}

// KeyIDs returns the key ids of the signatures that the package carries, in
// ascending order.
func (p *Package) KeyIDs() []sign.KeyID {
	ids := map[sign.KeyID]bool{}
	for _, f := range p.Files {
		if sig, err := sign.ParseSignature(f.Value); err == nil {
			ids[sig.KeyID] = true
		}
	}
	return slices.Sorted(maps.Keys(ids))
}
