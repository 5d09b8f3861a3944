package deb

import (
	"archive/tar"
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/deb/dpkgtar"
	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// reseal returns a signed package whose control archive was changed.
func reseal(t testing.TB, s []byte, change func(entries []entry) []entry) []byte {
	t.Helper()
	p := open(t, s)
	var entries []entry
	for _, m := range p.kept.members {
		e := file("./"+m.name, m.mode, string(m.content))
		entries = append(entries, e)
	}
	return withControlGz(t, s, tarOf(t, change(entries)...))
}

// withControlGz returns the package s with another control archive.
func withControlGz(t testing.TB, s, raw []byte) []byte {
	t.Helper()
	p := open(t, s)
	var b bytes.Buffer
	if err := p.writeFront(t.Context(), &b, "control.tar.gz", compress(t, ".gz", raw)); err != nil {
		t.Fatal(err)
	}
	b.Write(s[p.archive.data.stop():])
	return b.Bytes()
}

// noFolder is a build whose control archive reseal can rebuild.
func noFolder(tail ...arMember) build {
	return build{control: controlFiles()[1:], tail: tail}
}

func edit(name string, change func(content string) string) func([]entry) []entry {
	return func(entries []entry) []entry {
		for i, e := range entries {
			if e.Name == "./"+name {
				entries[i] = file(e.Name, e.Mode, change(e.content))
			}
		}
		return entries
	}
}

func drop(names ...string) func([]entry) []entry {
	return func(entries []entry) []entry {
		return slices.DeleteFunc(entries, func(e entry) bool { return slices.Contains(names, strings.TrimPrefix(e.Name, "./")) })
	}
}

func appended(e ...entry) func([]entry) []entry {
	return func(entries []entry) []entry { return append(entries, e...) }
}

// TestMalformedSignedPackages: what has members of ours and is not what signing
// makes is reported by Manifest and refused by Write.
func TestMalformedSignedPackages(t *testing.T) {
	raw := noFolder().bytes(t)
	s := signed(t, raw, sign.WriteOptions{})
	if same := reseal(t, s, func(e []entry) []entry { return e }); !verify(t, same).OK() {
		t.Fatal("a control archive that was only compressed anew is refused")
	}
	tailed := signed(t, noFolder(arMember{name: "_x", content: []byte("ab")}).bytes(t), sign.WriteOptions{})
	nested := func(content string) string {
		return string(tarOf(t, append(noFolder().control, file("./ima-package", 0o644, "x"))...))
	}
	replaced := func(with []byte) func(string) string { return func(string) string { return string(with) } }
	otherControl := controlFiles()[1:]
	otherControl[1] = file("./conffiles", 0o644, "/etc/other.conf\n")
	plain := func(p []byte) []byte { return open(t, p).kept.raw }
	flipAt := func(from []byte, find string, offset int) []byte {
		r := bytes.Clone(plain(from))
		at := bytes.Index(r, []byte(find))
		block := at &^ (dpkgtar.BlockSize - 1)
		return withControlGz(t, from, patched(r, block, func(b []byte) { b[offset] ^= 1 }))
	}
	xz := func() []byte {
		need(t, "xz")
		p := open(t, s)
		var b bytes.Buffer
		p.writeFront(t.Context(), &b, "control.tar.xz", compress(t, ".xz", plain(s)))
		return b.Bytes()
	}
	for name, c := range map[string]badTar{
		"no ima-signatures":             {reseal(t, s, drop("ima-signatures")), "not ima-signatures"},
		"no ima-control-signatures":     {reseal(t, s, drop("ima-control-signatures")), "not ima-control-signatures"},
		"no ima-package":                {reseal(t, s, drop("ima-package")), "not ima-package"},
		"no original":                   {reseal(t, s, drop("unsigned.control.tar")), "not unsigned.control.tar"},
		"the original alone":            {reseal(t, s, drop("ima-package", "ima-signatures", "ima-control-signatures")), "not ima-control-signatures, ima-package, ima-signatures"},
		"ima-package alone":             {reseal(t, raw, appended(file("./ima-package", 0o644, "x"))), "not ima-control-signatures, ima-signatures, unsigned.control.tar"},
		"ima-signatures alone":          {reseal(t, raw, appended(file("./ima-signatures", 0o644, ""))), "not ima-control-signatures, ima-package"},
		"unsigned.tail alone":           {reseal(t, raw, appended(file("./unsigned.tail", 0o644, ""))), "not ima-control-signatures, ima-package"},
		"unsigned.x alone":              {reseal(t, raw, appended(file("./unsigned.x", 0o644, ""))), "not ima-control-signatures, ima-package"},
		"two originals":                 {reseal(t, s, appended(file("./unsigned.control.tar.gz", 0o644, "x"))), "a package has one original"},
		"member behind ours":            {reseal(t, s, appended(file("./config", 0o755, "#!/bin/sh\n"))), "control member config stands behind"},
		"member among ours":             {reseal(t, s, func(e []entry) []entry { return slices.Insert(e, len(e)-2, file("./config", 0o755, "x")) }), "control member config stands behind"},
		"member before ours":            {reseal(t, s, func(e []entry) []entry { return slices.Insert(e, 0, file("./config", 0o755, "x")) }), "does not have the entries"},
		"preinst changed":               {reseal(t, s, edit("preinst", func(c string) string { return c + "rm -rf /\n" })), "does not have the entries"},
		"preinst gone":                  {reseal(t, s, drop("preinst")), "does not have the entries"},
		"original of another package":   {reseal(t, s, edit("unsigned.control.tar", replaced(tarOf(t, otherControl...)))), "does not have the entries"},
		"original with more":            {reseal(t, s, edit("unsigned.control.tar", replaced(tarOf(t, append(noFolder().control, file("./x", 0o644, ""))...)))), "does not have the entries"},
		"original with less":            {reseal(t, s, edit("unsigned.control.tar", replaced(tarOf(t, noFolder().control[:2]...)))), "does not have the entries"},
		"original with ours":            {reseal(t, s, edit("unsigned.control.tar", nested)), "does not have the entries"},
		"original without end":          {reseal(t, s, edit("unsigned.control.tar", func(c string) string { return strings.TrimRight(c, "\x00") })), "does not have the entries"},
		"original with junk":            {reseal(t, s, edit("unsigned.control.tar", func(c string) string { return c + "junk" })), "does not have the entries"},
		"original empty":                {reseal(t, s, edit("unsigned.control.tar", replaced(nil))), "does not have the entries"},
		"original compressed":           {reseal(t, s, edit("unsigned.control.tar", replaced(compress(t, ".gz", tarOf(t, noFolder().control...))))), "the content is not none but gzip"},
		"original called .bz2":          {reseal(t, s, rename("unsigned.control.tar", "unsigned.control.tar.bz2")), "no such compression"},
		"original called data.tar":      {reseal(t, s, rename("unsigned.control.tar", "unsigned.data.tar")), "not that of a control archive"},
		"original called x":             {reseal(t, s, rename("unsigned.control.tar", "unsigned.x")), "not that of a control archive"},
		"other order":                   {reseal(t, s, func(e []entry) []entry { n := len(e); e[n-2], e[n-3] = e[n-3], e[n-2]; return e }), "another order"},
		"other mode of a member":        {flipAt(s, "./ima-package", 106), "other headers"},
		"other time of a member":        {flipAt(s, "./ima-package", 146), "other headers"},
		"other owner of a member":       {flipAt(s, "./ima-signatures", 113), "other headers"},
		"user name of a member":         {flipAt(s, "./ima-signatures", 265), "other headers"},
		"longer end mark":               {withControlGz(t, s, append(bytes.Clone(plain(s)), make([]byte, dpkgtar.BlockSize)...)), "other headers"},
		"control.tar.xz":                {xz(), "is control.tar.gz, not control.tar.xz"},
		"signatures not sorted":         {reseal(t, s, edit("ima-signatures", swapEntries)), "names must be sorted"},
		"signatures with a comment":     {reseal(t, s, edit("ima-signatures", func(c string) string { return "# hello\n" + c })), "control member ima-signatures: line 1"},
		"signatures cut off":            {reseal(t, s, edit("ima-signatures", func(c string) string { return c[:len(c)-1] })), "control member ima-signatures: line"},
		"script signatures cut off":     {reseal(t, s, edit("ima-control-signatures", func(c string) string { return c[:len(c)-1] })), "control member ima-control-signatures: line"},
		"name that climbs in it":        {reseal(t, s, edit("ima-signatures", func(c string) string { return strings.Replace(c, "etc/hello", "../etc/hello", 1) })), `component ".."`},
		"too many signatures":           {reseal(t, s, edit("ima-signatures", replaced(bytes.Repeat([]byte("# file: x"), maxSignatures+1)))), "at most 131072"},
		"statement cut off":             {reseal(t, s, edit("ima-package", func(c string) string { return c[:len(c)/2] })), "control member ima-package"},
		"statement of another format":   {reseal(t, s, edit("ima-package", func(c string) string { return strings.Replace(c, "package-1", "package-2", 1) })), "control member ima-package: first line"},
		"statement with a line more":    {reseal(t, s, edit("ima-package", func(c string) string { return strings.Replace(c, "Hash:", "Note: x\nHash:", 1) })), "control member ima-package"},
		"member put behind data.tar":    {append(bytes.Clone(s), arOf(arMember{name: "_x", content: []byte("ab")})[8:]...), "1 ar members other than OpenPGP signatures follow data.tar, once there were 0"},
		"member behind data.tar gone":   {tailed[:open(t, tailed).archive.data.stop()], "0 ar members other than OpenPGP"},
		"member behind data.tar edited": {append(bytes.Clone(tailed[:len(tailed)-1]), 'x'), `ar member "_x" is not what it once was`},
		"tail empty":                    {reseal(t, tailed, edit("unsigned.tail", replaced(nil))), "it has 0 bytes"},
		"tail of junk":                  {reseal(t, tailed, edit("unsigned.tail", replaced([]byte("junk")))), "control member unsigned.tail: offset 0"},
		"tail with data.tar":            {reseal(t, tailed, edit("unsigned.tail", replaced(arOf(arMember{name: "data.tar"})[8:]))), "only names that begin with _"},
		"tail too large":                {reseal(t, tailed, edit("unsigned.tail", replaced(arOf(arMember{name: "_x", content: make([]byte, 2<<20)})[8:]))), "it has 2097212 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			p := open(t, c.raw)
			m, err := p.Manifest()
			if m != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Manifest: %v, error %v does not say %q", m, err, c.want)
			}
			r, err := sign.Verify(t.Context(), p, signtest.Trust(testKey), sign.Options{})
			if err != nil || r.OK() || r.Signed != 0 || !slices.ContainsFunc(r.Findings, func(f sign.Finding) bool { return f.Reason == sign.ReasonMalformed }) {
				t.Errorf("Verify: %+v, %v", r, err)
			}
			if err := p.CanWrite(nil, sign.WriteOptions{}); err == nil {
				t.Error("CanWrite would unsign it")
			}
			notSigned(t, c.raw, c.want)
		})
	}
}

func rename(from, to string) func([]entry) []entry {
	return func(entries []entry) []entry {
		for i := range entries {
			if entries[i].Name == "./"+from {
				entries[i].Name = "./" + to
			}
		}
		return entries
	}
}

// swapEntries changes the places of the first two entries.
func swapEntries(c string) string {
	e := strings.SplitAfter(c, "\n\n")
	e[0], e[1] = e[1], e[0]
	return strings.Join(e, "")
}

// TestTamperedSignedPackages: these are well formed; Verify must see through them.
func TestTamperedSignedPackages(t *testing.T) {
	s := signed(t, noFolder().bytes(t), sign.WriteOptions{})
	newer := controlFiles()[1:]
	newer[0] = file("./control", 0o644, strings.Replace(controlText, "2.10-3", "2.10-4", 1))
	other := signed(t, build{control: newer}.bytes(t), sign.WriteOptions{})
	from := func(p []byte, name string) func(string) string {
		return func(string) string { return string(open(t, p).kept.member(name).content) }
	}
	entryOf := func(c string, i int) string { return strings.SplitAfter(c, "\n\n")[i] }
	swapValues := func(c string) string {
		l := strings.Split(c, "\n")
		l[1], l[4] = l[4], l[1]
		return strings.Join(l, "\n")
	}
	otherData := payloadFiles()
	otherData[4] = file("./etc/hello.conf", 0o644, "greeting = bye\n")
	chmodded := payloadFiles()
	chmodded[4].Mode = 0o4777
	renamed := payloadFiles()
	renamed[8].Name = "./usr/bin/hex"
	dataOf := func(entries []entry) []byte {
		p := open(t, s)
		return append(bytes.Clone(s[:p.archive.data.offset]), arOf(arMember{name: "data.tar", content: tarOf(t, entries...)})[8:]...)
	}
	for name, raw := range map[string][]byte{
		"statement of another version":  reseal(t, s, edit("ima-package", from(other, "ima-package"))),
		"line dropped":                  reseal(t, s, edit("ima-signatures", func(c string) string { return c[len(entryOf(c, 0)):] })),
		"all lines dropped":             reseal(t, s, edit("ima-signatures", func(string) string { return "" })),
		"all script lines dropped":      reseal(t, s, edit("ima-control-signatures", func(string) string { return "" })),
		"line added":                    reseal(t, s, edit("ima-signatures", func(c string) string { return "# file: a\n" + strings.SplitAfterN(entryOf(c, 0), "\n", 2)[1] + c })),
		"line renamed":                  reseal(t, s, edit("ima-signatures", func(c string) string { return strings.Replace(c, "hello.conf", "hello.conx", 1) })),
		"values swapped":                reseal(t, s, edit("ima-signatures", swapValues)),
		"script values swapped":         reseal(t, s, edit("ima-control-signatures", swapValues)),
		"selection changed":             reseal(t, s, edit("ima-package", func(c string) string { return strings.Replace(c, "Select: all", "Select: exec", 1) })),
		"architecture changed":          reseal(t, s, edit("ima-package", func(c string) string { return strings.Replace(c, "amd64", "arm64", 1) })),
		"conffiles dropped from it":     reseal(t, s, edit("ima-package", func(c string) string { return dropLine(c, "SHA256-conffiles") })),
		"data.tar dropped from it":      reseal(t, s, edit("ima-package", func(c string) string { return dropLine(c, "SHA256-data.tar") })),
		"file changed":                  dataOf(otherData),
		"mode changed":                  dataOf(chmodded),
		"symbolic link renamed":         dataOf(renamed),
		"device dropped":                dataOf(payloadFiles()[:12]),
		"symbolic link added":           dataOf(append(payloadFiles(), link(tar.TypeSymlink, "./usr/z", "/etc"))),
		"data.tar of another packaging": dataOf(payloadFiles()[1:]),
	} {
		t.Run(name, func(t *testing.T) {
			if m, err := open(t, raw).Manifest(); m == nil || err != nil {
				t.Fatalf("Manifest: %v", err)
			}
			if r := verify(t, raw); r.OK() {
				t.Error("Verify says ok")
			}
		})
	}
}

func dropLine(text, field string) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, field+":") }), "")
}

// TestEveryByteCounts flips every byte of a signed package. What nothing vouches
// for holds nothing: the other fields of the ar headers, the minor version of the
// format, and bits of a compressed stream that do not change what it decompresses
// to.
func TestEveryByteCounts(t *testing.T) {
	for _, suffix := range []string{".gz", ".zst", ""} {
		small := build{controlSuffix: ".gz", dataSuffix: suffix, data: []entry{file("./usr/a", 0o644, "x")}}
		s := signed(t, small.bytes(t), sign.WriteOptions{})
		p := open(t, s)
		untouched := 0
		for n := range s {
			bad := bytes.Clone(s)
			bad[n] ^= 1
			q, err := Open(bytes.NewReader(bad), int64(len(bad)), Options{})
			if err != nil {
				continue
			}
			r, err := sign.Verify(t.Context(), q, signtest.Trust(testKey), sign.Options{})
			if err != nil || !r.OK() {
				continue
			}
			untouched++
			a, b := p.archive, q.archive
			if a.control.name != b.control.name || a.data.name != b.data.name || len(b.extra) > 0 || !bytes.Equal(p.kept.raw, q.kept.raw) {
				t.Errorf("byte %d of %d (%#02x) can be flipped", n, len(s), s[n])
			}
		}
		if untouched > 150 {
			t.Errorf("data.tar%s: %d of %d bytes can be flipped", suffix, untouched, len(s))
		}
	}
}

// TestControlIsStated: the statement names control and conffiles also where they have
// an x bit and so a file signature.
func TestControlIsStated(t *testing.T) {
	control := controlFiles()
	for i := range control {
		control[i].Mode = 0o755
	}
	var names []string
	for _, d := range open(t, build{control: control}.bytes(t)).stated {
		names = append(names, d.Name)
	}
	if !slices.Equal(names, []string{"control", "conffiles"}) {
		t.Errorf("the statement names %q", names)
	}
}

// TestEveryControlMemberCounts changes, adds and takes away control members that no
// file signature covers, in the visible archive and in the embedded one alike.
func TestEveryControlMemberCounts(t *testing.T) {
	honest := build{control: append(controlFiles(), file("./triggers", 0o644, "activate hello\n"))}
	m, err := sign.Sign(t.Context(), open(t, honest.bytes(t)), testKey, sign.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, control := range map[string][]entry{
		"control":      append(controlFiles()[:1], append([]entry{file("./control", 0o644, controlText+"Essential: yes\n")}, honest.control[2:]...)...),
		"triggers":     append(controlFiles(), file("./triggers", 0o644, "interest-noawait /usr\n")),
		"less":         controlFiles(),
		"more":         append(slices.Clone(honest.control), file("./shlibs", 0o644, "libhello 1 hello\n")),
		"more, dotted": append(slices.Clone(honest.control), file("./a.b", 0o644, "")),
	} {
		t.Run(name, func(t *testing.T) {
			other := open(t, build{control: control}.bytes(t))
			r := verify(t, write(t, other, m, sign.WriteOptions{}))
			if len(r.Findings) != 1 || r.Findings[0].Reason != sign.ReasonDigestMismatch {
				t.Errorf("findings %+v, want one digest mismatch", r.Findings)
			}
		})
	}
	if r := verify(t, write(t, open(t, honest.bytes(t)), m, sign.WriteOptions{})); !r.OK() {
		t.Errorf("the honest package: %+v", r.Findings)
	}
}
