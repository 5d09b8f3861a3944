package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// bootSuite is the Debian that case 7 boots, and bootPackages what it has besides a
// minimal system.
const (
	bootSuite    = "trixie"
	bootPackages = "initramfs-tools,keyutils,linux-image-cloud-amd64,systemd-sysv,udev,kmod"
)

// bootPolicy is what an administrator would write: everything that is executed, with
// one exemption. The initramfs still runs mount and run-init after the policy is
// loaded, and its file system, a ramfs, has no attributes.
const bootPolicy = `dont_appraise fsmagic=0x858458f6
appraise func=BPRM_CHECK appraise_type=imasig
appraise func=MMAP_CHECK mask=MAY_EXEC appraise_type=imasig
appraise func=MODULE_CHECK appraise_type=imasig
`

// bootScript runs as a service of the booted system and reports as the guest program
// does. The administrator signed it with imaseal sign-file.
const bootScript = `#!/bin/bash
kernel=$(uname -r)
record() { # ID EXPECTED SEEN
	printf 'LAB: {"kernel":"%s","case":7,"id":"%s","expected":"%s","seen":"%s"}\n' "$kernel" "$1" "$2" "$3"
}
verdict() { # COMMAND...
	local out status=0
	out=$("$@" 2>&1) || status=$?
	case $status-$out in
	0-*) echo allowed ;;
	126-*"Permission denied"*) echo denied ;;
	*) echo "status $status: ${out//[^a-zA-Z0-9 .,:\/=-]/ }" ;;
	esac
}
refusals=$(dmesg | grep -c 'res=0')
[ "$refusals" = 0 ] && refusals=none || refusals="$refusals, the first: $(dmesg | grep -m 1 'res=0' | tr -d '"')"
record "refusals before this" none "$refusals"
record "program of a signed package" allowed "$(verdict /usr/bin/true)"
record "unsigned script" denied "$(verdict /lab/unsigned)"
record "signed script with a byte appended" denied "$(verdict /lab/changed)"
record "imaseal check" allowed "$(verdict imaseal check --quiet)"
if imaseal hook status 2>&1 | grep -q 'ima_appraise=enforce'; then seen=told; else seen="not told"; fi
record "hook status tells of enforcement" told "$seen"
systemctl poweroff --force
`

// bootRecords is how many records bootScript gives.
const bootRecords = 6

const bootUnit = `[Unit]
Description=laboratory
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/imaseal-lab
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
`

// systemBoot is case 7: an enforcing boot from power-on, with Debian's own kernel,
// initramfs and systemd, of a root that only our tools have labelled.
func (l *lab) systemBoot(ctx context.Context, r *results) error {
	work, err := os.MkdirTemp("", "imaseal-lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	good, _, err := l.signingKeys()
	if err != nil {
		return err
	}
	key := good[3] // P-256
	if err := l.build(ctx, work, key); err != nil {
		return err
	}
	root := filepath.Join(work, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if err := l.systemRoot(ctx, root, bootSuite, bootPackages, key); err != nil {
		return err
	}
	if err := l.prepareBoot(ctx, root, key); err != nil {
		return err
	}
	image := filepath.Join(work, "image")
	if err := l.image(ctx, root, image); err != nil {
		return err
	}
	kernel, err := findOne(root, "boot/vmlinuz-*")
	if err != nil {
		return err
	}
	initrd, err := findOne(root, "boot/initrd.img-*")
	if err != nil {
		return err
	}
	defer l.step("booting Debian %s", bootSuite)()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024",
		"-nographic", "-nodefaults", "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-initrd", initrd,
		"-drive", "if=virtio,format=raw,snapshot=on,file="+image,
		"-append", "console=ttyS0 root=UUID="+imageUUID+" rw ima_appraise=enforce audit=1 systemd.unit=imaseal-lab.service systemd.show_status=0")
	console, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return err
	}
	records, rest := readRecords(console, r.add)
	err = cmd.Wait()
	if records < bootRecords {
		return fmt.Errorf("the system told %d of %d records: %v\n%s", records, bootRecords, err, lastLines(rest, 40))
	}
	return nil
}

// prepareBoot does what an administrator does for an enforcing boot (docs/enforcing.md).
func (l *lab) prepareBoot(ctx context.Context, root string, key signingKey) error {
	for name, text := range map[string]string{
		"etc/imaseal/boot.conf":                  "load=yes\n",
		"etc/imaseal/ima-policy":                 bootPolicy,
		"usr/local/sbin/imaseal-lab":             bootScript,
		"etc/systemd/system/imaseal-lab.service": bootUnit,
		"lab/unsigned":                           "#!/bin/sh\n",
		"lab/changed":                            "#!/bin/sh\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	sign := []string{"sign-file", "--quiet", "--key", key.key, "--cert", key.cert}
	for _, file := range []string{"usr/local/sbin/imaseal-lab", "lab/changed"} {
		if err := l.run(ctx, "", nil, l.imaseal, append(sign, filepath.Join(root, file))...); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(filepath.Join(root, "lab/changed"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString("\n"); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	defer l.step("making the initramfs")()
	return l.run(ctx, "", nil, "unshare", "--mount", "sh", "-c",
		`mount -t proc proc "$1/proc" && mount --bind /dev "$1/dev" && mount -t sysfs sysfs "$1/sys" && chroot "$1" update-initramfs -u -k all`, "sh", root)
}
