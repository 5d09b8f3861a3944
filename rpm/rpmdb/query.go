package rpmdb

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/imaseal/imaseal/sign/installed"
)

// A record is what rpm prints of a package. Its lists are in the order of the
// header's files; each string is quoted as for a shell (rpm's :shescape), so that no
// name, whatever its bytes, is taken for two or for the end. Binary values are in
// base64 and end with a full stop. A tag that is missing gives an empty list.
//
// The names of the files are not asked for where the header has them: rpm keeps
// HEADERIMMUTABLE as the package had it, and digests and OpenPGP signatures are over
// just these bytes. Only a relocated package has other names on the system.
const (
	recordStart = "#imaseal-rpm "
	recordEnd   = "#end\n"

	queryHead = recordStart + `%{DBINSTANCE} %{NAME:shescape} %{VERSION:shescape} %{RELEASE:shescape} %{ARCH:shescape} \n` +
		`%|HEADERIMMUTABLE?{%{HEADERIMMUTABLE:base64}}|.\n` +
		`%|ORIGBASENAMES?{[%{FILENAMES:shescape} ]}|\n` +
		`[%{FILESTATES} ]\n` +
		`%|FILESIGNATURES?{[%{FILESIGNATURES:shescape} ]}|\n` +
		`%|RSAHEADER?{%{RSAHEADER:base64}}|.\n` +
		`%|DSAHEADER?{%{DSAHEADER:base64}}|.\n`
	queryOpenPGP = `%|OPENPGP?{[%{OPENPGP:shescape} ]}|\n`
	queryNone    = `\n`
)

func (db *DB) format() string {
	if db.openPGP {
		return queryHead + queryOpenPGP + recordEnd[:len(recordEnd)-1] + `\n`
	}
	return queryHead + queryNone + recordEnd[:len(recordEnd)-1] + `\n`
}

// Packages yields the installed packages called names, each version of each, all of
// them when there are no names. A name is what rpm takes: a name, or name-version,
// name-version-release, each with .ARCH; an architecture may also stand behind a
// colon, as it does for dpkg.
func (db *DB) Packages(ctx context.Context, names []string) iter.Seq2[*installed.Package, error] {
	if len(names) == 0 {
		return db.query(ctx, []string{"-qa"})
	}
	args := []string{"-q"}
	for _, name := range names {
		label, err := labelOf(name)
		if err != nil {
			return func(yield func(*installed.Package, error) bool) { yield(nil, err) }
		}
		args = append(args, label)
	}
	return db.query(ctx, args)
}

// labelOf returns what rpm calls the package name. An epoch is in front of a
// version, so that a colon with an architecture behind it is another.
func labelOf(name string) (string, error) {
	if name == "" || strings.HasPrefix(name, "-") || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return "", fmt.Errorf("%q is no name of a package", name)
	}
	if base, arch, ok := strings.Cut(name, ":"); ok && !strings.ContainsAny(arch, ":-.") && !epoch(base) {
		return base + "." + arch, nil
	}
	return name, nil
}

// epoch reports whether what stands before a colon ends in the number of an epoch.
func epoch(base string) bool {
	number := base[strings.LastIndexByte(base, '-')+1:]
	return number != "" && strings.Trim(number, "0123456789") == ""
}

// query runs rpm and yields what it prints.
func (db *DB) query(ctx context.Context, args []string) iter.Seq2[*installed.Package, error] {
	return func(yield func(*installed.Package, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		call := []string{"--dbpath", db.folder, "--define", "_db_backend " + db.backend.name, args[0], "--queryformat", db.format(), "--"}
		cmd := command(ctx, db.rpm, append(call, args[1:]...)...)
		var errs limitedText
		cmd.Stderr = &errs
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			yield(nil, fmt.Errorf("rpm: %w", err))
			return
		}
		refused, more := db.walk(out, yield)
		if !more {
			cancel()
			cmd.Wait()
			return
		}
		err = cmd.Wait()
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case strings.Contains(string(errs.text), "using dummy database"):
			err = fmt.Errorf("%s cannot read a database of the kind %s (%s/%s): use the rpm of that system", db.rpm, db.backend.name, db.folder, db.backend.file)
		case errs.first() != "":
			// rpm leaves a package out whose header fails its digest, says so, and ends well.
			err = fmt.Errorf("rpm's database in %s: rpm says: %s", db.folder, errs.first())
		case err != nil && !refused:
			err = fmt.Errorf("rpm's database in %s: %w", db.folder, err)
		default:
			return
		}
		yield(nil, err)
	}
}

// walk yields the packages of out. refused says that one of the names is not
// installed, and more that the caller wants to go on.
func (db *DB) walk(out io.Reader, yield func(*installed.Package, error) bool) (refused, more bool) {
	r := &recordReader{r: bufio.NewReaderSize(out, 1<<16)}
	for {
		rec, err := r.next()
		switch {
		case err == io.EOF:
			return refused, true
		case err != nil:
			yield(nil, fmt.Errorf("rpm's database in %s: %w", db.folder, err))
			return refused, false
		case rec.refusal != "":
			refused = true
			if !yield(nil, fmt.Errorf("rpm's database in %s: %s", db.folder, rec.refusal)) {
				return refused, false
			}
		case rec.name == "gpg-pubkey":
			// A key that rpm trusts, which older versions keep as a package.
		default:
			if !yield(db.convert(rec)) {
				return refused, false
			}
		}
	}
}

// limitedText keeps the beginning of what is written to it.
type limitedText struct{ text []byte }

func (l *limitedText) Write(b []byte) (int, error) {
	l.text = append(l.text, b[:min(len(b), 1<<14-len(l.text))]...)
	return len(b), nil
}

// first returns the first error that is reported, without its mark: its line and
// those behind it that have no mark of their own.
func (l *limitedText) first() string {
	_, text, ok := strings.Cut("\n"+string(l.text), "\nerror: ")
	if !ok {
		return ""
	}
	var lines []string
	for line := range strings.Lines(text) {
		if len(lines) > 0 && (strings.HasPrefix(line, "error: ") || strings.HasPrefix(line, "warning: ")) {
			break
		}
		lines = append(lines, strings.TrimSpace(line))
	}
	return strings.Join(lines, " ")
}
