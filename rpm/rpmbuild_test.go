package rpm

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imaseal/imaseal/sign"
)

func TestRPMBuild(t *testing.T) {
	rpm := system(t)
	usual := func(defines ...string) spec { return spec{install: someFiles, files: someList, defines: defines} }
	for name, s := range map[string]spec{
		"gzip":     usual("_binary_payload w9.gzdio"),
		"bzip2":    usual("_binary_payload w9.bzdio"),
		"xz":       usual("_binary_payload w2.xzdio"),
		"lzma":     usual("_binary_payload w2.lzdio"),
		"zstd":     usual("_binary_payload w3.zstdio"),
		"none":     usual("_binary_payload w.ufdio"),
		"sha384":   usual("_binary_filedigest_algorithm 9"),
		"sha512":   usual("_binary_filedigest_algorithm 10"),
		"reserve0": usual("__gpg_reserved_space 0"),
		"reserve1": usual("__gpg_reserved_space -31"),
		"binary":   {arch: "native", install: "mkdir -p %{buildroot}/usr/bin\ncp /bin/true %{buildroot}/usr/bin/x\n", files: "/usr/bin/x\n"},
		"folder":   {install: "mkdir -p %{buildroot}/usr/x\n", files: "%dir /usr/x\n"},
		"ghost":    {files: "%ghost /usr/x\n"},
		"empty":    {},
		"epoch, scriptlets, triggers, config of each kind, capabilities": {
			preamble: "Epoch: 7\n", install: someFiles,
			files:   someList + "%config(noreplace) /etc/x.conf\n%caps(cap_net_raw=p) /usr/share/x/large\n%ghost %config /etc/y.conf\n%attr(0600, daemon, daemon) /usr/share/x/empty1\n",
			scripts: "%pre\n:\n%post -p <lua>\nx = 1\n%preun\n:\n%postun\n:\n%pretrans -p <lua>\nx = 1\n%triggerin -- y\n:\n%filetriggerin -- /usr/bin\n:\n",
		},
		"5,000 files": {install: "mkdir -p %{buildroot}/m\ncd %{buildroot}/m\nseq 5000 | split -a 4 -d -l 1\n", files: "/m\n",
			defines: []string{"_binary_payload w2.xzdio"}},
	} {
		t.Run(name, func(t *testing.T) {
			raw := s.build(t, "")
			judge(t, raw, rpm)
			trust, _ := signed(t, raw, Options{TrustHeaderDigests: true})
			full, _ := signed(t, raw, Options{})
			if !bytes.Equal(trust, full) {
				t.Error("trusting the header's digests gives another package")
			}
		})
	}
	for algo, name := range map[string]string{"1": "md5", "2": "sha1"} {
		raw := usual("_binary_filedigest_algorithm "+algo).build(t, "")
		if _, err := sign.Sign(t.Context(), open(t, raw, Options{}), testKey(), sign.Options{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestExecByHeader wants "exec" to mean the same files whether the payload is read or
// FILECOLORS, FILECLASS and the modes are believed.
func TestExecByHeader(t *testing.T) {
	system(t)
	s := spec{arch: "native", files: "/usr/lib/x/*\n", install: `mkdir -p %{buildroot}/usr/lib/x
cd %{buildroot}/usr/lib/x
cp /bin/true elf; cp /bin/true data.ko
gzip -c /bin/true >mod.ko.gz; xz -c /bin/true >mod.ko.xz; zstd -q -c /bin/true >mod.ko.zst
gzip -c /bin/true >elf.gz
for i in /bin/sh /bin/bash /usr/bin/perl '/usr/bin/env python3' '/usr/bin/env node' '/usr/bin/awk -f' '/usr/bin/make -f' /usr/bin/ruby /usr/bin/lua /opt/own; do
	echo "#!$i" >"script-$(echo "$i" | tr -c 'a-z0-9\n' _)"
done
printf '#! /bin/sh\n\377\376\001' >script-binary
printf '\043!/bin/sh' >script-short
echo 'print(1)' >module.py
echo text >text
: >empty
chmod 644 *
cp text run; chmod 755 run
cp text setuid; chmod 4711 setuid
`}
	raw := s.build(t, "")
	exec, err := sign.NewSelection([]string{"exec"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var lists [2][]string
	for i, trust := range []bool{false, true} {
		m, err := sign.Sign(t.Context(), open(t, raw, Options{TrustHeaderDigests: trust}), testKey(), sign.Options{Selection: exec})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range m.Files {
			lists[i] = append(lists[i], e.Path)
		}
	}
	if len(lists[0]) != 19 {
		t.Errorf("%d files are executable: %q", len(lists[0]), lists[0])
	}
	if diff := cmp.Diff(lists[0], lists[1]); diff != "" {
		t.Errorf("by the header (+) it is not what the payload says (-):\n%s", diff)
	}
}
