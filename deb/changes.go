package deb

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The control file of an upload, deb-changes(5), and that of a build,
// deb-buildinfo(5): one paragraph of deb822(5) with lists of files, which differ
// in their fields only.
//
//	Checksums-Sha256:
//	 <sum> <size> <name>
//	Files:
//	 <md5> <size> <section> <priority> <name>
const (
	filesField = "Files"

	maxChanges      = 16 << 20 // bytes; the largest uploads list some thousand files
	maxChangesFiles = 20000
	maxFileName     = 255 // bytes, of a path component in Linux
)

// A ChangesFile is a file that a [Changes] lists.
type ChangesFile struct {
	Name string // of a file beside the .changes, without a folder
	Size int64  // in bytes
	// MD5, SHA1 and SHA256 are in lower-case hexadecimal; empty where that sum is
	// not listed, which happens in a .buildinfo only.
	MD5, SHA1, SHA256 string
}

// Changes is a .changes or a .buildinfo without its clear signature. Rewriting it
// replaces sizes and sums and keeps every other byte.
type Changes struct {
	text  []byte
	files []listedFile // in the order of the first list
	index map[string]int
}

// A listedFile is a file and where its lines are.
type listedFile struct {
	ChangesFile
	lines [len(changesLists)]listLine
}

// A listLine is where the text has the sum and the size, each from one offset to
// another; none ends at 0.
type listLine struct{ sum, size [2]int }

// A changesList is a field that lists files.
type changesList struct {
	field   string
	columns int // sum and size come first, the name last
	digits  int // of the sum
	sum     func(*ChangesFile) *string
}

var (
	md5Of        = func(f *ChangesFile) *string { return &f.MD5 }
	changesLists = [...]changesList{
		{filesField, 5, 2 * md5.Size, md5Of},
		{"Checksums-Md5", 3, 2 * md5.Size, md5Of},
		{"Checksums-Sha1", 3, 2 * sha1.Size, func(f *ChangesFile) *string { return &f.SHA1 }},
		{"Checksums-Sha256", 3, 2 * sha256.Size, func(f *ChangesFile) *string { return &f.SHA256 }},
	}
)

// ParseChanges reads a .changes, whose Files, Checksums-Sha1 and Checksums-Sha256
// must list the same files with the same sizes. A clear signature has to be taken
// off before. Errors name the line.
func ParseChanges(text []byte) (*Changes, error) {
	return parseLists(text, ".changes", filesField, "Checksums-Sha1", "Checksums-Sha256")
}

// ParseBuildinfo reads a .buildinfo, which must have Checksums-Sha256 and no
// Files; its lists must agree.
func ParseBuildinfo(text []byte) (*Changes, error) {
	c, err := parseLists(text, ".buildinfo", "Checksums-Sha256")
	if err == nil && c.files[0].lines[0].sum[1] != 0 {
		return nil, fmt.Errorf("it has a field Files, which no .buildinfo has")
	}
	return c, err
}

func parseLists(text []byte, kind string, required ...string) (*Changes, error) {
	if bytes.HasPrefix(text, []byte("-----BEGIN")) {
		return nil, fmt.Errorf("the %s is still inside its signature", kind)
	}
	if len(text) > maxChanges {
		return nil, fmt.Errorf("%d bytes are too many for a %s: at most %d", len(text), kind, maxChanges)
	}
	c := &Changes{text: bytes.Clone(text), index: map[string]int{}}
	lists := map[string]int{} // how many files each has
	seen := map[string]bool{}
	list := -1 // index of the list that the lines belong to
	field, ended := "", false
	line, start := 0, 0
	for raw := range bytes.Lines(c.text) {
		line++
		at := start
		start += len(raw)
		l := string(bytes.TrimSuffix(raw, []byte("\n")))
		switch {
		case strings.ContainsAny(l, "\x00\r"):
			return nil, fmt.Errorf("line %d holds a NUL or a carriage return", line)
		case strings.Trim(l, " \t") == "":
			ended = true
			if l != "" || field == "" {
				return nil, fmt.Errorf("line %d is blank", line)
			}
		case ended:
			return nil, fmt.Errorf("line %d begins a second paragraph", line)
		case l[0] == ' ' || l[0] == '\t':
			if field == "" {
				return nil, fmt.Errorf("line %d continues nothing", line)
			}
			if list < 0 {
				continue
			}
			name := changesLists[list].field
			if lists[name]++; lists[name] > maxChangesFiles {
				return nil, fmt.Errorf("line %d: more than %d files", line, maxChangesFiles)
			}
			if err := c.addItem(list, l, at, len(lists) == 1); err != nil {
				return nil, fmt.Errorf("line %d, %s: %w", line, name, err)
			}
		default:
			var value string
			var err error
			if field, value, err = splitField(l); err != nil {
				return nil, fmt.Errorf("line %d: %w", line, err)
			}
			key := strings.ToLower(field)
			if seen[key] {
				return nil, fmt.Errorf("line %d: a second field %s", line, field)
			}
			seen[key] = true
			if list, err = listOf(field); err != nil {
				return nil, fmt.Errorf("line %d: %w", line, err)
			}
			if list >= 0 {
				lists[changesLists[list].field] = 0
				if value != "" {
					return nil, fmt.Errorf("line %d: %s lists a file on its first line", line, field)
				}
			}
		}
	}
	for _, name := range required {
		if lists[name] == 0 {
			return nil, fmt.Errorf("no list %s, or an empty one: this is no %s that imaseal can update", name, kind)
		}
	}
	for name, n := range lists {
		if n != len(c.files) {
			return nil, fmt.Errorf("%s lists %d files, other lists %d", name, n, len(c.files))
		}
	}
	return c, nil
}

// splitField splits the first line of a field, deb822(5).
func splitField(line string) (name, value string, err error) {
	name, value, ok := strings.Cut(line, ":")
	if !ok || name == "" || name[0] == '#' || name[0] == '-' ||
		strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", "", fmt.Errorf("%.60q is no field", line)
	}
	return name, strings.Trim(value, " \t"), nil
}

// listOf returns the index of the list that a field is, -1 if it is none. One that
// is not known cannot be updated and must not stay behind with old sums.
func listOf(field string) (int, error) {
	for i := range changesLists {
		if strings.EqualFold(changesLists[i].field, field) {
			return i, nil
		}
	}
	if strings.HasPrefix(strings.ToLower(field), "checksums-") {
		return -1, fmt.Errorf("%s is a kind of checksums that is not known", field)
	}
	return -1, nil
}

// addItem reads the line of a list that begins at offset at of the text. The
// files come from the first list; all others have to know the same.
func (c *Changes) addItem(list int, line string, at int, first bool) error {
	kind := &changesLists[list]
	columns := columnsOf(line)
	if len(columns) != kind.columns {
		return fmt.Errorf("%d columns, not %d", len(columns), kind.columns)
	}
	column := func(i int) string { return line[columns[i][0]:columns[i][1]] }
	sum, name := column(0), column(len(columns)-1)
	if err := checkSum(sum, kind.digits); err != nil {
		return err
	}
	size, err := parseListedSize(column(1))
	if err != nil {
		return err
	}
	if err := checkFileName(name); err != nil {
		return err
	}
	i, known := c.index[name]
	if !known {
		if !first {
			return fmt.Errorf("%s is not in the other lists", name)
		}
		i = len(c.files)
		c.index[name] = i
		c.files = append(c.files, listedFile{ChangesFile: ChangesFile{Name: name, Size: size}})
	}
	f := &c.files[i]
	if f.lines[list].sum[1] != 0 {
		return fmt.Errorf("%s is listed twice", name)
	}
	if f.Size != size {
		return fmt.Errorf("%s has %d bytes, but %d in another list", name, size, f.Size)
	}
	if stated := kind.sum(&f.ChangesFile); *stated != "" && *stated != sum {
		return fmt.Errorf("%s has another sum in another list", name)
	}
	*kind.sum(&f.ChangesFile) = sum
	f.lines[list] = listLine{
		sum:  [2]int{at + columns[0][0], at + columns[0][1]},
		size: [2]int{at + columns[1][0], at + columns[1][1]},
	}
	return nil
}

// columnsOf returns where the words of line begin and end; one more than any list
// has is enough.
func columnsOf(line string) [][2]int {
	columns := make([][2]int, 0, 6)
	for i := 0; i < len(line) && len(columns) < cap(columns); {
		if line[i] == ' ' || line[i] == '\t' {
			i++
			continue
		}
		end := i
		for end < len(line) && line[end] != ' ' && line[end] != '\t' {
			end++
		}
		columns = append(columns, [2]int{i, end})
		i = end
	}
	return columns
}

func checkSum(sum string, digits int) error {
	if len(sum) != digits || strings.Trim(sum, "0123456789abcdef") != "" {
		return fmt.Errorf("%.80q is not a sum of %d lower-case hexadecimal digits", sum, digits)
	}
	return nil
}

func parseListedSize(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("size %.40q is not a number of bytes", s)
	}
	return n, nil
}

// checkFileName refuses a name that is not one of a file beside the .changes.
func checkFileName(name string) error {
	bad := func(r rune) bool { return r <= ' ' || r == 0x7f || r == '/' }
	if name == "" || name == "." || name == ".." || len(name) > maxFileName || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("%.80q is not a plain file name", name)
	}
	return nil
}

// Files returns the files in the order in which they are listed.
func (c *Changes) Files() []ChangesFile {
	files := make([]ChangesFile, len(c.files))
	for i := range c.files {
		files[i] = c.files[i].ChangesFile
	}
	return files
}

// Update replaces size and sums of the file f.Name. Sums that are not listed are
// left out. It fails when the file is not listed, or f lacks what is.
func (c *Changes) Update(f ChangesFile) error {
	i, ok := c.index[f.Name]
	if !ok {
		return fmt.Errorf("%s is not listed", f.Name)
	}
	if f.Size < 0 {
		return fmt.Errorf("%s has a size of %d bytes", f.Name, f.Size)
	}
	updated := ChangesFile{Name: f.Name, Size: f.Size}
	for list, line := range c.files[i].lines {
		if line.sum[1] == 0 {
			continue
		}
		kind := &changesLists[list]
		sum := *kind.sum(&f)
		if err := checkSum(sum, kind.digits); err != nil {
			return fmt.Errorf("%s for %s: %w", f.Name, kind.field, err)
		}
		*kind.sum(&updated) = sum
	}
	c.files[i].ChangesFile = updated
	return nil
}

// Bytes returns the text with the sizes and sums of the last updates.
func (c *Changes) Bytes() []byte {
	type edit struct {
		at   [2]int
		with string
	}
	var edits []edit
	for i := range c.files {
		f := &c.files[i]
		for list, line := range f.lines {
			if line.sum[1] != 0 {
				edits = append(edits,
					edit{line.sum, *changesLists[list].sum(&f.ChangesFile)},
					edit{line.size, strconv.FormatInt(f.Size, 10)})
			}
		}
	}
	slices.SortFunc(edits, func(a, b edit) int { return a.at[0] - b.at[0] })
	var out []byte
	done := 0
	for _, e := range edits {
		out = append(out, c.text[done:e.at[0]]...)
		out = append(out, e.with...)
		done = e.at[1]
	}
	return append(out, c.text[done:]...)
}
