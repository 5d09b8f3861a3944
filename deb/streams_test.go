package deb

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/imaseal/imaseal/internal/compression"
)

// filter returns what the program makes of stdin.
func filter(t testing.TB, stdin []byte, args ...string) []byte {
	t.Helper()
	need(t, args[0])
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return out
}

// noisyPayload is an archive of noise, which does not compress, and zeros.
func noisyPayload(t testing.TB, size int) []byte {
	t.Helper()
	noise := make([]byte, size)
	for i, sum := 0, sha256.Sum256(nil); i < len(noise); i += len(sum) {
		copy(noise[i:], sum[:])
		sum = sha256.Sum256(sum[:])
	}
	zeros := make([]byte, 300<<10)
	return tarOf(t, append(payloadFiles(), file("./usr/noise", 0o644, string(noise)), file("./usr/zeros", 0o644, string(zeros)))...)
}

// dpkgReads returns what dpkg-deb hands to dpkg of a package.
func dpkgReads(t testing.TB, raw []byte) []byte {
	t.Helper()
	out, err := exec.Command("dpkg-deb", "--fsys-tarfile", store(t, "p.deb", raw)).Output()
	if err != nil {
		t.Fatalf("dpkg-deb --fsys-tarfile: %v", err)
	}
	return out
}

func withDataAs(t testing.TB, name string, content []byte) []byte {
	t.Helper()
	m := build{}.members(t)
	m[2] = arMember{name: name, content: content}
	return arOf(m...)
}

// TestEveryWayToCompress: what dpkg-deb reads is what is hashed here, in whatever
// pieces it was compressed.
func TestEveryWayToCompress(t *testing.T) {
	need(t, "dpkg-deb")
	data := noisyPayload(t, 300<<10)
	big := noisyPayload(t, 2<<20) // so that the xz program is used
	small := tarOf(t, payloadFiles()...)
	zst := func(o ...zstd.EOption) []byte {
		var b bytes.Buffer
		w, err := zstd.NewWriter(&b, o...)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(data)
		w.Close()
		return b.Bytes()
	}
	xz := func(args ...string) []byte { return filter(t, data, append([]string{"xz", "-c"}, args...)...) }
	single, err := zstd.NewWriter(nil, zstd.WithSingleSegment(true))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		member  string
		content []byte
	}{
		"xz blocks":            {"data.tar.xz", xz("--block-size=50000")},
		"xz blocks, big":       {"data.tar.xz", filter(t, big, "xz", "-0", "-c", "--block-size=500000")},
		"xz crc32":             {"data.tar.xz", xz("--check=crc32")},
		"xz sha256":            {"data.tar.xz", xz("--check=sha256")},
		"xz x86 filter":        {"data.tar.xz", xz("--x86", "--lzma2")},
		"xz dictionary of 64M": {"data.tar.xz", xz("-9")},
		"zstd":                 {"data.tar.zst", zst()},
		"zstd best":            {"data.tar.zst", zst(zstd.WithEncoderLevel(zstd.SpeedBestCompression))},
		"zstd no checksum":     {"data.tar.zst", zst(zstd.WithEncoderCRC(false))},
		"zstd by hand":         {"data.tar.zst", zstdFrame(small)},
		"zstd in one segment":  {"data.tar.zst", single.EncodeAll(data, nil)},
		"gzip members":         {"data.tar.gz", append(compress(t, ".gz", data[:1536]), compress(t, ".gz", data[1536:])...)},
		"gzip stored":          {"data.tar.gz", gzipStored(t, data)},
		"bzip2 blocks":         {"data.tar.bz2", filter(t, data, "bzip2", "-1", "-c")},
		"lzma":                 {"data.tar.lzma", xz("--format=lzma")},
		"not at all":           {"data.tar", data},
	} {
		t.Run(name, func(t *testing.T) {
			raw := withDataAs(t, c.member, c.content)
			roundtrip(t, raw)
			p := open(t, raw)
			for _, err := range p.Files(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
			}
			if got := sha256.Sum256(dpkgReads(t, raw)); got != p.dataDigest {
				t.Error("dpkg-deb reads another archive")
			}
		})
	}
}

func gzipStored(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(data)
	w.Close()
	return b.Bytes()
}

// secondStreams are two compressed streams in the format of suffix that make up
// archive, in all the ways that have something in the second; cut is where to cut.
func secondStreams(t testing.TB, suffix string, archive []byte, cut int) map[string][]byte {
	t.Helper()
	first, second := compress(t, suffix, archive[:cut]), compress(t, suffix, archive[cut:])
	whole, empty := compress(t, suffix, archive), compress(t, suffix, nil)
	cases := map[string][]byte{
		"two":          slices.Concat(first, second),
		"empty first":  slices.Concat(empty, whole),
		"empty middle": slices.Concat(first, empty, second),
	}
	switch suffix {
	case ".xz":
		cases["padded"] = slices.Concat(first, make([]byte, 8), second)
	case ".zst":
		// cut is behind padding. What follows is shorter than that.
		cases["repeated byte"] = slices.Concat(zstdFrame(archive[:cut]), compress(t, suffix, []byte("x")))
		cases["skippable between"] = slices.Concat(first, []byte("\x50\x2a\x4d\x18\x04\x00\x00\x00skip"), second)
	}
	return cases
}

// zstdFrame is content of less than 128 KiB that ends in 400 zeros as a zstd frame
// without a checksum, of a raw block and one of a repeated byte.
func zstdFrame(content []byte) []byte {
	const zeros = 400
	n := uint32(len(content) - zeros)
	frame := binary.LittleEndian.AppendUint32([]byte("\x28\xb5\x2f\xfd\xa0"), uint32(len(content)))
	frame = append(frame, byte(n<<3), byte(n<<3>>8), byte(n<<3>>16))
	frame = append(frame, content[:n]...)
	return append(frame, zeros<<3&0xff|1<<1|1, zeros>>5, 0, 0)
}

// TestSecondStreams: dpkg-deb stops after the first stream, silently, and so would
// leave out files that are signed, or a script.
func TestSecondStreams(t *testing.T) {
	need(t, "dpkg-deb")
	data, control := tarOf(t, payloadFiles()...), tarOf(t, noFolder().control...)
	cut := bytes.Index(data, []byte("./usr/bin/hello"))
	cutControl := bytes.Index(control, []byte("./preinst"))
	want := compression.ErrStreams.Error()
	for _, suffix := range []string{".xz", ".zst", ".bz2"} {
		for name, content := range secondStreams(t, suffix, data, cut) {
			t.Run("data.tar"+suffix+" "+name, func(t *testing.T) {
				raw := withDataAs(t, "data.tar"+suffix, content)
				if bytes.Equal(dpkgReads(t, raw), data) {
					t.Error("dpkg-deb reads all of it: need not be refused")
				}
				notSigned(t, raw, "data.tar"+suffix+": "+want)
			})
		}
		if suffix == ".bz2" {
			continue // of no control archive
		}
		for name, content := range secondStreams(t, suffix, control, cutControl) {
			t.Run("control.tar"+suffix+" "+name, func(t *testing.T) {
				m := build{}.members(t)
				m[1] = arMember{name: "control.tar" + suffix, content: content}
				notSigned(t, arOf(m...), "control.tar"+suffix+": "+want)
			})
			t.Run("embedded control.tar"+suffix+" "+name, func(t *testing.T) {
				s := signed(t, build{control: noFolder().control, controlSuffix: suffix}.bytes(t), noOptions)
				bad := reseal(t, s, edit("unsigned.control.tar"+suffix, func(string) string { return string(content) }))
				if m, err := open(t, bad).Manifest(); m != nil || err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("Manifest: %v, %v", m, err)
				}
			})
		}
	}
}

// TestWhereAStreamEnds has frames with the shortest headers, and heads of bzip2
// streams across the bounds of what is read at once.
func TestWhereAStreamEnds(t *testing.T) {
	check := func(raw []byte, f compression.Format) error {
		return oneStream(bytes.NewReader(raw), int64(len(raw)), f)
	}
	for _, o := range [][]zstd.EOption{{zstd.WithSingleSegment(true)}, {zstd.WithEncoderCRC(false)}, {zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false)}} {
		w, err := zstd.NewWriter(nil, o...)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{1, 200, 300, 70000} {
			frame := w.EncodeAll(bytes.Repeat([]byte("ab"), size), nil)
			if err := check(frame, compression.Zstd); err != nil {
				t.Errorf("%x: %v", frame[:9], err)
			}
			if err := check(append(frame, frame...), compression.Zstd); !errors.Is(err, compression.ErrStreams) {
				t.Errorf("%x twice: %v", frame[:9], err)
			}
		}
	}
	head := []byte("BZh91AY&SY")
	for at := 64<<10 - 12; at < 64<<10+3; at++ {
		raw := append(append(bytes.Clone(head), make([]byte, at-len(head))...), head...)
		if err := check(raw, compression.Bzip2); !errors.Is(err, compression.ErrStreams) {
			t.Errorf("a bzip2 stream at %d: %v", at, err)
		}
		if err := check(raw[:len(raw)-1], compression.Bzip2); err != nil {
			t.Errorf("most of the head of a bzip2 stream at %d: %v", at, err)
		}
	}
}

// TestRecompressedSignedPackage is the attack that the rule is for: same archive, so
// that the statement holds, in two streams.
func TestRecompressedSignedPackage(t *testing.T) {
	s := signed(t, build{}.bytes(t), noOptions)
	data := tarOf(t, payloadFiles()...)
	p := open(t, s)
	for _, suffix := range []string{".xz", ".zst", ".bz2"} {
		with := func(content []byte) *Package {
			return open(t, append(bytes.Clone(s[:p.archive.data.offset]), arOf(arMember{name: "data.tar" + suffix, content: content})[8:]...))
		}
		walk := func(p *Package) (err error) {
			for _, err = range p.Files(t.Context()) {
				if err != nil {
					break
				}
			}
			return err
		}
		if err := walk(with(compress(t, suffix, data))); err != nil {
			t.Errorf("%s: one stream: %v", suffix, err)
		}
		if err := walk(with(append(compress(t, suffix, data[:1536]), compress(t, suffix, data[1536:])...))); err == nil {
			t.Errorf("%s: two streams are taken", suffix)
		}
	}
}

// FuzzOneStream: a member that is let pass and decoded has no second stream that
// holds anything, which is tried by putting one behind it.
func FuzzOneStream(f *testing.F) {
	formats := []compression.Format{compression.Xz, compression.Zstd, compression.Bzip2}
	more := map[compression.Format][]byte{}
	for i, suffix := range []string{".xz", ".zst", ".bz2"} {
		more[formats[i]] = compress(f, suffix, []byte("more"))
		for _, content := range []string{"", "x", strings.Repeat("long enough ", 99)} {
			f.Add(uint8(i), compress(f, suffix, []byte(content)))
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, raw []byte) {
		format := formats[int(n)%len(formats)]
		check := func(raw []byte) error { return oneStream(bytes.NewReader(raw), int64(len(raw)), format) }
		err := check(raw)
		r, bad := compression.NewReader(bytes.NewReader(raw), format)
		if bad == nil {
			_, bad = io.Copy(io.Discard, io.LimitReader(r, 1<<20))
			r.Close()
		}
		if err != nil || bad != nil || compression.Detect(raw) != format {
			return
		}
		if check(append(bytes.Clone(raw), more[format]...)) == nil {
			t.Fatalf("%s: a second stream behind %x is let pass", format, raw)
		}
	})
}
