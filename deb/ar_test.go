package deb

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

// field sets a field of an ar header.
func field(get func(*arHeader) []byte, value string) func(*arHeader) {
	return func(h *arHeader) { copy(get(h), fmt.Sprintf("%-*s", len(get(h)), value)) }
}

// arCases are archives that are refused, by their defect, with what the error says.
func arCases(t testing.TB) map[string]struct {
	raw  []byte
	want string
} {
	good := build{}.members(t)
	version, control, data := good[0], good[1], good[2]
	extra := arMember{name: "_gpgorigin", content: []byte("abc")}
	with := func(m arMember, header func(*arHeader)) arMember { m.header = header; return m }
	named := func(m arMember, name string) arMember { m.name = name; return m }
	whole := arOf(good...)
	dataAt := len(arOf(version, control))
	cases := map[string]struct {
		raw  []byte
		want string
	}{
		"empty file":                        {nil, "offset 0: no ar archive"},
		"magic cut off":                     {[]byte("!<arch>"), "offset 0: no ar archive"},
		"wrong magic":                       {append([]byte("!<arcH>\n"), whole[8:]...), "offset 0: no ar archive"},
		"thin archive":                      {append([]byte("!<thin>\n"), whole[8:]...), "offset 0: no ar archive"},
		"magic only":                        {[]byte(arMagic), "offset 8: the file ends where the ar member debian-binary should be"},
		"header cut off":                    {whole[:8+59], "offset 8: 59 bytes follow"},
		"debian-binary only":                {arOf(version), "the file ends where the ar member control.tar should be"},
		"no data.tar":                       {arOf(version, control), "the file ends where the ar member data.tar should be"},
		"no control.tar":                    {arOf(version, data), `there is the ar member "data.tar" where control.tar should be`},
		"no debian-binary":                  {arOf(control, data), "where debian-binary should be"},
		"data.tar before control.tar":       {arOf(version, data, control), "where control.tar should be"},
		"two debian-binary":                 {arOf(version, version, control, data), "where control.tar should be"},
		"two control.tar":                   {arOf(version, control, control, data), "where data.tar should be"},
		"control.tar and control.tar.gz":    {arOf(version, control, named(control, "control.tar.gz"), data), "where data.tar should be"},
		"two data.tar":                      {arOf(version, control, data, data), `ar member "data.tar" after data.tar`},
		"second pair at the end":            {arOf(version, control, data, control, data), `ar member "control.tar" after data.tar`},
		"_gpgorigin before control.tar":     {arOf(version, extra, control, data), "where control.tar should be"},
		"_gpgorigin before data.tar":        {arOf(version, control, extra, data), "where data.tar should be"},
		"_gpgorigin first":                  {arOf(extra, version, control, data), "where debian-binary should be"},
		"other member after data.tar":       {arOf(version, control, data, arMember{name: "extra", content: []byte("ab")}), "only names that begin with _"},
		"_gpgorigin twice":                  {arOf(version, control, data, extra, extra), "stands there twice"},
		"_gpgorigin twice, once with slash": {arOf(version, control, data, extra, named(extra, "_gpgorigin/")), "stands there twice"},
		"junk after data.tar":               {append(bytes.Clone(whole), "junk"...), "4 bytes follow, too few"},
		"newline after data.tar":            {append(bytes.Clone(whole), '\n'), "1 bytes follow, too few"},
		"zeros after data.tar":              {append(bytes.Clone(whole), make([]byte, 120)...), "no header of an ar member"},
		"archive in an archive":             {append(bytes.Clone(whole), whole...), "no header of an ar member"},
		"data.tar cut off":                  {whole[:len(whole)-512], "but only"},
		"file one byte short":               {whole[:len(whole)-1], "but only"},
		"control.tar cut off":               {whole[:dataAt-512], "but only"},
		"pad missing at the end":            {arOf(version, control, data, extra)[:len(arOf(version, control, data, extra))-1], "is not padded"},
		"pad of zero":                       {arOf(version, control, data, arMember{name: "_a", content: []byte("a"), pad: "\x00"}), "is padded with 0x00"},
		"pad missing in between":            {arOf(version, control, data, arMember{name: "_a", content: []byte("a"), pad: "_"}, extra), "is padded with 0x5f"},
		"pad where none belongs":            {arOf(version, control, arMember{name: "data.tar", content: data.content, pad: "\n"}, extra), "no header of an ar member"},
		"name with a folder":                {arOf(version, named(control, "./control.tar"), data), "is not one that a member of a .deb has"},
		"name with a leading blank":         {arOf(version, named(control, " control.tar"), data), "is not one"},
		"name with an inner blank":          {arOf(version, named(control, "control.tar gz"), data), "is not one"},
		"name with NUL":                     {arOf(version, named(control, "control.tar\x00"), data), "is not one"},
		"name with two slashes":             {arOf(version, named(control, "control.tar//"), data), "is not one"},
		"name in capitals":                  {arOf(version, named(control, "CONTROL.TAR"), data), "where control.tar should be"},
		"name empty":                        {arOf(version, named(control, ""), data), "is not one"},
		"name of a GNU table":               {arOf(named(version, "//"), control, data), "is not one"},
		"name of a GNU symbol table":        {arOf(named(version, "/"), version, control, data), "is not one"},
		"name of BSD":                       {arOf(version, named(control, "#1/12"), data), "is not one"},
		"control.tarx":                      {arOf(version, named(control, "control.tarx"), data), "where control.tar should be"},
		"control.tar.":                      {arOf(version, named(control, "control.tar."), data), "no such compression"},
		"control.tar.bz2":                   {arOf(version, named(control, "control.tar.bz2"), data), "no such compression"},
		"control.tar.lzma":                  {arOf(version, named(control, "control.tar.lzma"), data), "no such compression"},
		"data.tar.lz4":                      {arOf(version, control, named(data, "data.tar.lz4")), "no such compression"},
		"data.tar.gz.gz":                    {arOf(version, control, named(data, "data.tar.gz.gz")), "no such compression"},
		"debian-binary 3.0":                 {arOf(arMember{name: "debian-binary", content: []byte("3.0\n")}, control, data), "only format 2"},
		"debian-binary 0.939000":            {arOf(arMember{name: "debian-binary", content: []byte("0.939000\n")}, control, data), "only format 2"},
		"debian-binary 2":                   {arOf(arMember{name: "debian-binary", content: []byte("2\n")}, control, data), "only format 2"},
		"debian-binary 2.x":                 {arOf(arMember{name: "debian-binary", content: []byte("2.x\n")}, control, data), "only format 2"},
		"debian-binary 2.-1":                {arOf(arMember{name: "debian-binary", content: []byte("2.-1\n")}, control, data), "only format 2"},
		"debian-binary without newline":     {arOf(arMember{name: "debian-binary", content: []byte("2.0")}, control, data), "only format 2"},
		"debian-binary empty":               {arOf(arMember{name: "debian-binary"}, control, data), "only format 2"},
		"debian-binary of a mebibyte":       {arOf(arMember{name: "debian-binary", content: bytes.Repeat([]byte("2.0\n"), 1<<18)}, control, data), "debian-binary has 1048576 bytes"},
		"size past the end":                 {arOf(version, control, with(data, field((*arHeader).size, "9999999999"))), "has 9999999999 bytes, but only"},
		"size of debian-binary past end":    {arOf(with(version, field((*arHeader).size, "99999")), control, data), "has 99999 bytes, but only"},
		"65 members after data.tar":         {arOf(append(good, many(65)...)...), "more than 64"},
	}
	for name, value := range map[string]string{
		"negative": "-60", "with a letter": "4x", "hexadecimal": "0x10", "blank": "", "with a sign": "+512",
		"with a blank in front": " 512", "with a point": "512.0", "with an underscore": "5_12", "in exponents": "1e3", "NUL": "512\x00",
	} {
		cases["size "+name] = struct {
			raw  []byte
			want string
		}{arOf(version, control, with(data, field((*arHeader).size, value))), "is no number"}
	}
	for name, get := range map[string]func(*arHeader) []byte{
		"modification time": (*arHeader).mtime, "owner": (*arHeader).uid, "group": (*arHeader).gid, "mode": (*arHeader).mode,
	} {
		for _, value := range []string{"", "-1", "x", " 7"} {
			cases[fmt.Sprintf("%s %q", name, value)] = struct {
				raw  []byte
				want string
			}{arOf(version, with(control, field(get, value)), data), `ar member "control.tar": ` + name}
		}
	}
	cases["mode of two digits"] = struct {
		raw  []byte
		want string
	}{arOf(version, with(control, field((*arHeader).mode, "64")), data), "less than three digits"}
	cases["mode not octal"] = struct {
		raw  []byte
		want string
	}{arOf(version, with(control, field((*arHeader).mode, "100684")), data), "is no number"}
	for i, m := range good {
		changed := append([]arMember(nil), good...)
		changed[i] = with(m, field((*arHeader).end, "x\n"))
		cases["header end of "+m.name] = struct {
			raw  []byte
			want string
		}{arOf(changed...), "no header of an ar member"}
	}
	return cases
}

func many(n int) []arMember {
	var all []arMember
	for i := range n {
		all = append(all, arMember{name: fmt.Sprintf("_%d", i), content: []byte("ab")})
	}
	return all
}

func TestOpenRefusesArchives(t *testing.T) {
	for name, c := range arCases(t) {
		_, err := Open(bytes.NewReader(c.raw), int64(len(c.raw)), Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "offset ") {
			t.Errorf("%s: error %v does not begin with an offset and say %q", name, err, c.want)
		}
	}
}

// TestOpenRefusesEveryTruncation cuts a package short at every byte.
func TestOpenRefusesEveryTruncation(t *testing.T) {
	raw := signed(t, build{controlSuffix: ".gz", dataSuffix: ".gz"}.bytes(t), sign.WriteOptions{})
	for n := range raw {
		if _, err := Open(bytes.NewReader(raw[:n]), int64(n), Options{}); err == nil {
			t.Errorf("the first %d of %d bytes are taken for a package", n, len(raw))
		}
	}
}

// TestOddArchives are fine, and have to survive signing with their oddities.
func TestOddArchives(t *testing.T) {
	good := build{}.members(t)
	version, control, data := good[0], good[1], good[2]
	with := func(m arMember, header func(*arHeader)) arMember { m.header = header; return m }
	named := func(m arMember, name string) arMember { m.name = name; return m }
	both := func(a, b func(*arHeader)) func(*arHeader) { return func(h *arHeader) { a(h); b(h) } }
	for name, raw := range map[string][]byte{
		"names with a slash":           arOf(named(version, "debian-binary/"), named(control, "control.tar/"), named(data, "data.tar/")),
		"control.tar.zst with a slash": arOf(version, arMember{name: "control.tar.zst/", content: compress(t, ".zst", control.content)}, data),
		"owner, group, mode, time": arOf(version, with(control, both(
			both(field((*arHeader).uid, "1000"), field((*arHeader).gid, "100")), both(field((*arHeader).mode, "644"), field((*arHeader).mtime, "0")))), data),
		"mode 0100644":            arOf(version, with(control, field((*arHeader).mode, "0100644")), data),
		"size with zeros, data":   arOf(version, control, with(data, field((*arHeader).size, fmt.Sprintf("%010d", len(data.content))))),
		"debian-binary with more": arOf(arMember{name: "debian-binary", content: []byte("2.17\nmore\n")}, control, data),
		"odd debian-binary":       arOf(arMember{name: "debian-binary", content: []byte("2.10\n")}, control, data),
		"members after data.tar":  arOf(version, control, data, arMember{name: "_a", content: []byte("a")}, arMember{name: "_b"}),
	} {
		s := signed(t, raw, sign.WriteOptions{})
		if r := verify(t, s); !r.OK() {
			t.Errorf("%s: %+v", name, r.Findings)
		}
		if !bytes.Equal(write(t, open(t, s), nil, sign.WriteOptions{}), raw) {
			t.Errorf("%s: unsign gives other bytes", name)
		}
		before, after := open(t, raw).archive.control.header, open(t, s).archive.control.header
		copy(before.rawName(), after.rawName())
		copy(before.size(), after.size())
		if before != after {
			t.Errorf("%s: control.tar's header %q became %q", name, before, after)
		}
		slash := func(h arHeader) bool { return bytes.Contains(h.rawName(), []byte("/")) }
		if slash(open(t, raw).archive.control.header) != slash(after) {
			t.Errorf("%s: name became %q", name, after.rawName())
		}
	}
}

// TestHeaderThatCannotBeGivenBack: such a package is read and copied, not signed.
func TestHeaderThatCannotBeGivenBack(t *testing.T) {
	members := build{}.members(t)
	members[1].header = field((*arHeader).size, fmt.Sprintf("%010d", len(members[1].content)))
	raw := arOf(members...)
	p := open(t, raw)
	err := p.CanWrite(new(sign.Manifest), sign.WriteOptions{})
	if err == nil || !strings.Contains(err.Error(), "odd way") {
		t.Errorf("CanWrite: %v", err)
	}
	m, err := sign.Sign(t.Context(), p, testKey, sign.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := p.Write(t.Context(), &b, m, sign.WriteOptions{}); err == nil || b.Len() > 0 {
		t.Errorf("Write: %v after %d bytes", err, b.Len())
	}
	if !bytes.Equal(write(t, p, nil, sign.WriteOptions{}), raw) {
		t.Error("the copy differs")
	}
}

func TestNewMemberIsAsDebsigsMakesIt(t *testing.T) {
	var b bytes.Buffer
	if err := writeNewMember(&b, originMember, buildTime, []byte("abc")); err != nil {
		t.Fatal(err)
	}
	want := "_gpgorigin      1700000000  0     0     100644  3         `\nabc\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}
