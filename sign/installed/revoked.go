package installed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

// A RevokedResult is what [System.Revoked] found.
type RevokedResult struct {
	// Result has a report for each package that something was found about, and a last
	// one, without a package, for files that belong to none.
	Result
	Format string // "deb" or "rpm"; "" when no package was found
	// Packages is how many packages were looked at, Signed how many of them have
	// signatures in the database; Files how many regular files were looked at, and
	// Labelled how many of these carry a signature.
	Packages, Signed, Files, Labelled int
}

// Revoked finds what is signed by one of the keys: every regular file below the root
// that carries such a label, whether a package owns it or not, and every package whose
// signatures in the database are such ones, which a later Apply would set.
//
// Keys are told by their ids, as the kernel does it; no content is read. File systems
// that keep no labels are passed over.
func (s *System) Revoked(ctx context.Context, keys map[sign.KeyID]bool) (*RevokedResult, error) {
	packages, errs, err := s.read(ctx, nil)
	if err != nil {
		return nil, err
	}
	result := &RevokedResult{Result: Result{Errors: errs}, Packages: len(packages)}
	reports := map[*Package]*Report{nil: {}}
	for _, p := range packages {
		result.Format = p.Format
		reports[p] = &Report{Package: p}
		if p.Signed {
			result.Signed++
		}
		if p.Malformed != nil {
			reports[p].find("", KindMalformed, p.Malformed.Error())
		}
		for _, id := range p.KeyIDs() {
			if keys[id] {
				reports[p].find("", KindRevoked, fmt.Sprintf("its signatures in the package database are by key %s", id))
			}
		}
	}
	w := &labelWalk{system: s, keys: keys, seen: map[inode]bool{}}
	if err := w.collect(ctx, "", 0); err != nil {
		return nil, err
	}
	if err := w.look(ctx); err != nil {
		return nil, err
	}
	owners := s.ownersOf(packages)
	for _, f := range w.findings {
		var p *Package
		if by := owners.byName[strings.TrimPrefix(f.Path, "/")]; len(by) > 0 {
			p = by[0].pkg
			f.Package = p.ID()
		}
		reports[p].Findings = append(reports[p].Findings, f)
	}
	for _, p := range append(packages, nil) {
		if r := reports[p]; len(r.Findings) > 0 {
			result.Reports = append(result.Reports, r)
		}
	}
	result.Files, result.Labelled = int(w.files.Load()), int(w.labelled.Load())
	return result, nil
}

// A labelWalk looks at the label of every file of a system.
type labelWalk struct {
	system  *System
	keys    map[sign.KeyID]bool
	seen    map[inode]bool // folders, which mounts can show twice
	folders []folderNames

	files, labelled atomic.Int64
	mu              sync.Mutex
	findings        []Finding
}

type inode struct{ device, number uint64 }

// folderNames are the regular files of a folder.
type folderNames struct {
	folder string
	names  []string
}

func (w *labelWalk) find(name string, kind Kind, detail string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.findings = append(w.findings, Finding{Path: "/" + name, Kind: kind, Detail: detail})
}

// collect lists the files beneath a folder, whose parent is on device. Links are not
// followed. What can't be listed is a finding.
func (w *labelWalk) collect(ctx context.Context, folder string, device uint64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := w.system.Root.OpenFolder(folder)
	if absent(err) {
		return nil // gone meanwhile
	}
	if err != nil {
		w.find(folder, KindError, reason(err, w.system.Root, folder))
		return nil
	}
	var stat unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &stat); err == nil && (stat.Dev != device && !keepsLabels(int(f.Fd())) || w.seen[inode{stat.Dev, stat.Ino}]) {
		f.Close()
		return nil
	}
	w.seen[inode{stat.Dev, stat.Ino}] = true
	var entries []fs.DirEntry
	if err == nil {
		entries, err = list(f)
	}
	f.Close()
	if err != nil {
		w.find(folder, KindError, reason(err, w.system.Root, folder))
	}
	here := folderNames{folder: folder}
	var below []string
	for _, e := range entries {
		switch {
		case e.IsDir():
			below = append(below, e.Name())
		case e.Type().IsRegular():
			here.names = append(here.names, e.Name())
		}
	}
	if len(here.names) > 0 {
		w.folders = append(w.folders, here)
	}
	for _, name := range below {
		if err := w.collect(ctx, path.Join(folder, name), stat.Dev); err != nil {
			return err
		}
	}
	return nil
}

// pseudo are the file systems, by the numbers that statfs gives them, whose files are
// the kernel's own data.
var pseudo = []int64{
	unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC,
	unix.SECURITYFS_MAGIC, unix.SELINUX_MAGIC, unix.BPF_FS_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.EFIVARFS_MAGIC, unix.PSTOREFS_MAGIC,
}

// keepsLabels reports whether the file system of an open folder may keep labels.
func keepsLabels(fd int) bool {
	var stat unix.Statfs_t
	if unix.Fstatfs(fd, &stat) == nil && slices.Contains(pseudo, int64(stat.Type)) {
		return false
	}
	_, err := unix.Fgetxattr(fd, sign.XattrName, make([]byte, 1))
	return err != unix.EOPNOTSUPP
}

// look reads the labels, those of several folders at once.
func (w *labelWalk) look(ctx context.Context) error {
	if w.system.Expect != nil {
		count := 0
		for _, f := range w.folders {
			count += len(f.names)
		}
		w.system.Expect(count)
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range max(1, w.system.Jobs) {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(w.folders) || ctx.Err() != nil {
					return
				}
				for _, name := range w.folders[i].names {
					w.file(path.Join(w.folders[i].folder, name))
				}
				if w.system.Progress != nil {
					w.system.Progress(len(w.folders[i].names), 0)
				}
			}
		})
	}
	workers.Wait()
	slices.SortFunc(w.findings, func(a, b Finding) int { return strings.Compare(a.Path, b.Path) })
	return ctx.Err()
}

// file looks at the label of one file.
func (w *labelWalk) file(name string) {
	f, err := w.system.Root.Open(name)
	switch {
	case absent(err), errors.Is(err, xattr.ErrNotRegular):
		return // another name meanwhile
	case err != nil:
		w.find(name, KindError, reason(err, w.system.Root, name))
		return
	}
	defer f.Close()
	w.files.Add(1)
	label, err := f.Get(sign.XattrName)
	if err != nil && !errors.Is(err, xattr.ErrUnsupported) {
		w.find(name, KindError, reason(err, w.system.Root, name))
		return
	}
	if !isSignature(label) {
		return
	}
	w.labelled.Add(1)
	if sig, err := sign.ParseSignature(label); err == nil && w.keys[sig.KeyID] {
		w.find(name, KindRevoked, "labelled by key "+sig.KeyID.String())
	}
}
