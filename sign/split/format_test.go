package split

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign/signtest"
)

// blocks returns the indented blocks of the section of docs/format.md that begins with
// heading.
func blocks(t *testing.T, heading string) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("no section %q", heading)
	}
	var found []string
	var block strings.Builder
	inside := false
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "#") {
			break
		}
		indented, ok := strings.CutPrefix(line, "    ")
		switch {
		case ok:
			block.WriteString(indented)
			inside = true
		case inside && line == "\n":
			block.WriteString(line)
		case inside:
			found = append(found, strings.TrimSuffix(block.String(), "\n"))
			block.Reset()
			inside = false
		}
	}
	if inside {
		found = append(found, strings.TrimRight(block.String(), "\n")+"\n")
	}
	return found
}

// TestFormatExample signs the request in docs/format.md by the key there.
func TestFormatExample(t *testing.T) {
	example := blocks(t, "### 4.3 Split signing")
	if len(example) != 2 {
		t.Fatalf("%d blocks: %q", len(example), example)
	}
	if made := responseTo(t, []byte(example[0]), signtest.FormatSigner()); !bytes.Equal(made, []byte(example[1])) {
		t.Errorf("the response to\n%s\nis\n%s\nthe document has\n%s", example[0], made, example[1])
	}
}
