package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A stock kernel is one of Debian's own, as users have them.
type stock struct {
	name, suite string
	// packages hold the kernel and its modules; a pattern of a name each.
	packages []string
	// ecdsa says that the kernel verifies ECDSA.
	ecdsa bool
}

var stocks = []stock{
	{"6.1", "bookworm", []string{`^linux-image-6\.1\..*[0-9]-cloud-amd64$`}, false},
	{"6.12", "trixie", []string{`^linux-image-6\.12\..*-cloud-amd64$`}, true},
	{"7.2", "forky", []string{`^linux-binary-7\..*-cloud-amd64$`, `^linux-modules-7\..*-cloud-amd64$`}, true},
}

// diskModules are what a stock kernel needs to see its disk, in the order in which
// they are loaded, and the hash that 6.1 does not load by itself.
var diskModules = []string{"virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk", "sha512_generic"}

// otherModules are small ones of which a kernel has at least one, none of which is
// needed: to be packed, signed and loaded.
var otherModules = []string{"wp512", "rmd160", "michael_mic", "xcbc", "dummy"}

// stockKernel returns a kernel of Debian's in an emulated machine. Debian's kernels
// have no CA of ours and take any certificate into the keyring _ima, which root makes.
func (l *lab) stockKernel(ctx context.Context, s stock) (*kernel, error) {
	dir, err := l.made("kernel-"+s.suite, func(dir string) error { return l.fetchKernel(ctx, dir, s) })
	if err != nil {
		return nil, err
	}
	systemKey := "p256"
	if !s.ecdsa {
		systemKey = "rsa2048"
	}
	k := &kernel{name: s.name, systemKey: systemKey, device: "/dev/vda", keyring: "_ima", ecdsa: s.ecdsa, limit: 30 * time.Minute, modules: map[string][]byte{}}
	for _, name := range diskModules {
		content, err := os.ReadFile(filepath.Join(dir, name+".ko"))
		if errors.Is(err, os.ErrNotExist) {
			continue // built in
		}
		if err != nil {
			return nil, err
		}
		k.modules["/"+name+".ko"] = content
	}
	for _, name := range otherModules {
		if file := filepath.Join(dir, name+".ko"); k.other == "" && exists(file) {
			k.other = file
		}
	}
	k.command = func(ctx context.Context, initramfs, image, scratch string, keep bool) *exec.Cmd {
		return qemu(ctx, filepath.Join(dir, "vmlinuz"), initramfs, image, keep,
			"quiet rootfstype=ramfs ima_appraise=enforce audit=1 lsm=integrity")
	}
	return k, nil
}

// qemu boots a kernel in an emulated machine, whose console is the output. The image
// stays as it is unless keep is set.
func qemu(ctx context.Context, kernel, initramfs, image string, keep bool, commandLine string) *exec.Cmd {
	drive := "if=virtio,format=raw,file=" + image
	if !keep {
		drive += ",snapshot=on"
	}
	return exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024",
		"-nographic", "-nodefaults", "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-initrd", initramfs,
		"-drive", drive, "-append", "console=ttyS0 "+commandLine)
}

// fetchKernel gets the newest kernel of a suite through apt.
func (l *lab) fetchKernel(ctx context.Context, dir string, s stock) error {
	work, err := os.MkdirTemp("", "imaseal-lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := l.download(ctx, work, s); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range packages {
		if err := l.run(ctx, "", nil, "dpkg-deb", "-x", deb, filepath.Join(work, "tree")); err != nil {
			return err
		}
	}
	image, err := findOne(filepath.Join(work, "tree"), "boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz", "lib/modules/*/vmlinuz")
	if err != nil {
		return err
	}
	if err := l.run(ctx, "", nil, "cp", image, filepath.Join(dir, "vmlinuz")); err != nil {
		return err
	}
	return l.takeModules(ctx, filepath.Join(work, "tree"), dir)
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// takeModules unpacks the modules that boots want, as far as they are not built in.
func (l *lab) takeModules(ctx context.Context, tree, dir string) error {
	all, err := l.output(ctx, "", "find", tree, "-name", "*.ko*", "-type", "f")
	if err != nil {
		return err
	}
	for file := range strings.Lines(all) {
		file = strings.TrimSpace(file)
		base, _, _ := strings.Cut(filepath.Base(file), ".ko")
		for _, name := range slices.Concat(diskModules, otherModules) {
			if strings.ReplaceAll(base, "-", "_") != name {
				continue
			}
			content, err := unpackModule(ctx, file)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, name+".ko"), content, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func unpackModule(ctx context.Context, file string) ([]byte, error) {
	content, err := os.ReadFile(file)
	if err != nil || !strings.HasSuffix(file, ".xz") {
		return content, err
	}
	cmd := exec.CommandContext(ctx, "xz", "-dc")
	cmd.Stdin = bytes.NewReader(content)
	return cmd.Output()
}

func findOne(dir string, patterns ...string) (string, error) {
	for _, p := range patterns {
		found, err := filepath.Glob(filepath.Join(dir, p))
		if err != nil {
			return "", err
		}
		if len(found) > 0 {
			return found[len(found)-1], nil
		}
	}
	return "", fmt.Errorf("none of %s in the kernel's packages", strings.Join(patterns, ", "))
}

// download gets the newest packages of a suite into dir, by an apt of its own whose
// lists and status are below dir.
func (l *lab) download(ctx context.Context, dir string, s stock) error {
	defer l.step("downloading a kernel of %s", s.suite)()
	mirror, err := l.mirror(ctx)
	if err != nil {
		return err
	}
	for _, d := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	list := filepath.Join(dir, "sources.list")
	source := "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] " + mirror + " " + s.suite + " main\n"
	for file, text := range map[string]string{list: source, filepath.Join(dir, "status"): ""} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	options := []string{"-qq"}
	for _, o := range []string{"Dir::State=" + dir, "Dir::State::status=" + dir + "/status", "Dir::Cache=" + dir,
		"Dir::Etc::SourceList=" + list, "Dir::Etc::SourceParts=/dev/null", "Dir::Etc::Preferences=/dev/null",
		"Dir::Etc::PreferencesParts=/dev/null", "APT::Sandbox::User=root", "Acquire::Check-Valid-Until=false"} {
		options = append(options, "-o", o)
	}
	if err := l.run(ctx, dir, nil, "apt-get", append(options, "update")...); err != nil {
		return err
	}
	for _, pattern := range s.packages {
		// The newest of the names that match, as a suite keeps several.
		names, err := l.output(ctx, dir, "apt-cache", append(options, "search", "--names-only", pattern)...)
		if err != nil {
			return err
		}
		name, err := newestName(ctx, names)
		if err != nil {
			return fmt.Errorf("%s in %s: %w", pattern, s.suite, err)
		}
		if err := l.run(ctx, dir, nil, "apt-get", append(options, "download", name)...); err != nil {
			return err
		}
	}
	return nil
}

// newestName returns the last by version of what apt-cache search printed.
func newestName(ctx context.Context, found string) (string, error) {
	cmd := exec.CommandContext(ctx, "sort", "-V")
	cmd.Stdin = strings.NewReader(found)
	sorted, err := cmd.Output()
	if err != nil {
		return "", err
	}
	lines := strings.Fields(lastLines(string(sorted), 1))
	if len(lines) == 0 {
		return "", errors.New("apt knows no such package")
	}
	return lines[0], nil
}

// mirror returns the Debian archive that this machine uses.
func (l *lab) mirror(ctx context.Context) (string, error) {
	text, err := l.output(ctx, "", "apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN)", "Created-By: Packages")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		uri, origin, _ := strings.Cut(strings.TrimSpace(line), " ")
		if origin == "Debian" && !strings.Contains(uri, "security") && strings.HasPrefix(uri, "http") {
			return strings.TrimSuffix(uri, "/"), nil
		}
	}
	return "http://deb.debian.org/debian", nil
}
