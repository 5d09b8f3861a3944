package rpm

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestFormatExample holds the signature header of docs/format.md, which a second
// implementation is tested against, to what is written here.
func TestFormatExample(t *testing.T) {
	doc, err := os.ReadFile("../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	value, err := hex.DecodeString("0302043156371000020102")
	if err != nil {
		t.Fatal(err)
	}
	raw := buildHeader([]entry{
		textsEntry(sigFileSignatures, "", fmt.Sprintf("%x", value)),
		intsEntry(sigFileSignatureLength, typeInt32, uint64(len(value))),
	}, sigRegion)
	raw = append(raw, make([]byte, padded(int64(len(raw)))-int64(len(raw)))...)
	_, section, _ := strings.Cut(string(doc), "### 4.2")
	shown := ""
	for line := range strings.Lines(section) {
		for _, word := range strings.Fields(line) {
			if len(word) != 8 || strings.Trim(word, "0123456789abcdef") != "" || !strings.HasPrefix(line, "    ") {
				break
			}
			shown += word
		}
	}
	if made := hex.EncodeToString(raw); shown != made {
		t.Errorf("docs/format.md shows the header as\n%s\nit is\n%s", shown, made)
	}
}
