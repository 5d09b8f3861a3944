package main

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// umlConfig is what is switched on in a kernel that has nothing else, built as a
// program (User-Mode Linux).
//
//go:embed uml.config
var umlConfig string

// roomForRegisters is a change of the source: 6.12 keeps 2,696 bytes for a process's
// floating point registers, and a processor with AMX has 11,008. It is as a sed
// command for arch/x86/um/user-offsets.c; newer kernels ask the host.
const roomForRegisters = `s/DEFINE_LONGS(HOST_FP_SIZE, 2696)/DEFINE_LONGS(HOST_FP_SIZE, 12288)/`

// umlSource is Debian's package of the kernel's source.
const umlSource = "linux-source-6.12"

// uml returns the program that is kernel A: its source is Debian's, and its
// keyring .ima takes what the laboratory's CA issued.
func (l *lab) uml(ctx context.Context) (string, error) {
	ca, err := l.ca()
	if err != nil {
		return "", err
	}
	version, err := l.candidate(ctx, umlSource)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	sum.Write([]byte(umlConfig + roomForRegisters))
	sum.Write(ca.certificate.Raw)
	name := fmt.Sprintf("uml-%s-%s", plainName(version), hex.EncodeToString(sum.Sum(nil)[:6]))
	dir, err := l.made(name, func(dir string) error {
		return l.buildUML(ctx, dir, version, ca.file)
	})
	return filepath.Join(dir, "linux"), err
}

func (l *lab) buildUML(ctx context.Context, dir, version, caFile string) error {
	tree, err := l.kernelSource(ctx, dir, version)
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	fragment := filepath.Join(dir, "config")
	if err := os.WriteFile(fragment, []byte(strings.ReplaceAll(umlConfig, "CA.pem", caFile)), 0o644); err != nil {
		return err
	}
	if err := l.run(ctx, tree, nil, "sed", "-i", roomForRegisters, "arch/x86/um/user-offsets.c"); err != nil {
		return err
	}
	done := l.step("configuring")
	if err := l.run(ctx, tree, []string{"KCONFIG_ALLCONFIG=" + fragment}, "make", "ARCH=um", "allnoconfig"); err != nil {
		return err
	}
	done()
	done = l.step("compiling the kernel, some ten minutes on two cores")
	if err := l.run(ctx, tree, nil, "make", "ARCH=um", fmt.Sprintf("-j%d", runtime.NumCPU()), "linux"); err != nil {
		return err
	}
	done()
	if err := l.run(ctx, tree, nil, "cp", ".config", filepath.Join(dir, "config")); err != nil {
		return err
	}
	return l.run(ctx, tree, nil, "strip", "-o", filepath.Join(dir, "linux"), "linux")
}

// kernelSource unpacks Debian's source of the kernel below dir.
func (l *lab) kernelSource(ctx context.Context, dir, version string) (string, error) {
	defer l.step("fetching and unpacking %s %s", umlSource, version)()
	tree := filepath.Join(dir, "tree")
	packed := filepath.Join(dir, "packed")
	for _, d := range []string{tree, packed} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return "", err
		}
	}
	defer os.RemoveAll(packed)
	if err := l.run(ctx, packed, nil, "apt-get", "download", "-q", umlSource+"="+version); err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(packed, "*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("apt-get download left %d packages", len(found))
	}
	if err := l.run(ctx, packed, nil, "dpkg-deb", "-x", found[0], "."); err != nil {
		return "", err
	}
	archive := filepath.Join(packed, "usr/src", umlSource+".tar.xz")
	return tree, l.run(ctx, packed, nil, "tar", "-xJf", archive, "-C", tree, "--strip-components=1")
}

// candidate returns the version of a package that apt would install.
func (l *lab) candidate(ctx context.Context, name string) (string, error) {
	text, err := l.output(ctx, "", "apt-cache", "policy", name)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		version, ok := strings.CutPrefix(strings.TrimSpace(line), "Candidate: ")
		if ok && version != "(none)" {
			return version, nil
		}
	}
	return "", fmt.Errorf("apt knows no %s: run apt-get update; on Debian 12 it is in bookworm-security or bookworm-backports", name)
}

// plainName makes a version fit for a file name.
func plainName(version string) string {
	return strings.NewReplacer("~", "-", ":", "-", "/", "-").Replace(version)
}
