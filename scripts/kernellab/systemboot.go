package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// bootSuite is the Debian that case 7 boots, and bootPackages what it has besides a
// minimal system.
const (
	bootSuite    = "trixie"
	bootPackages = "initramfs-tools,keyutils,linux-image-cloud-amd64,systemd-sysv,udev,kmod"
)

// bootScript runs as a service of the booted system and reports as the guest program
// does. It is a script of the administrator's own.
const bootScript = `#!/bin/bash
case $(cat /proc/cmdline) in *ima_appraise=enforce*) mode=enforce refused=denied ;; *) mode=log refused=allowed ;; esac
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
record "$mode: refusals before this" none "$refusals"
record "$mode: program of a signed package" allowed "$(verdict /usr/bin/true)"
record "$mode: unsigned script" $refused "$(verdict /lab/unsigned)"
record "$mode: signed script with a byte appended" $refused "$(verdict /lab/changed)"
seen="not told"
for _ in 1 2 3 4 5; do # the kernel writes its log a little later
	if dmesg | grep -q 'appraise_data.*name="/lab/unsigned"'; then seen=told; break; fi
	sleep 1
done
record "$mode: the kernel's log tells of the unsigned script" told "$seen"
record "$mode: imaseal check" allowed "$(verdict imaseal check --quiet)"
imaseal hook status 2>&1 | grep -q "ima_appraise=$mode" && seen=told || seen="not told"
record "$mode: hook status tells what the kernel does" told "$seen"
systemctl poweroff --force
`

// bootRecords is how many records bootScript gives.
const bootRecords = 7

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
	if err := l.build(ctx, key); err != nil {
		return err
	}
	root := filepath.Join(work, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	packages, err := l.bareRoot(ctx, root, bootSuite, bootPackages, key)
	if err != nil {
		return err
	}
	if err := l.prepareBoot(ctx, root, packages, key); err != nil {
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
	for _, mode := range []string{"log", "enforce"} {
		if err := l.bootSystem(ctx, mode, kernel, initrd, image, r); err != nil {
			return fmt.Errorf("ima_appraise=%s: %w", mode, err)
		}
	}
	return nil
}

// bootSystem boots the system of an image, which stays as it is.
func (l *lab) bootSystem(ctx context.Context, mode, kernel, initrd, image string, r *results) error {
	defer l.step("booting Debian %s with ima_appraise=%s", bootSuite, mode)()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	cmd := qemu(ctx, kernel, initrd, image, false,
		"root=UUID="+imageUUID+" rw ima_appraise="+mode+" audit=1 systemd.unit=imaseal-lab.service systemd.show_status=0")
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

// prepareBoot does what an administrator does: the commands of docs/enforcing.md, in
// the root.
func (l *lab) prepareBoot(ctx context.Context, root, packages string, key signingKey) error {
	for name, text := range map[string]string{
		"usr/local/sbin/imaseal-lab":             bootScript,
		"etc/systemd/system/imaseal-lab.service": bootUnit,
		"lab/unsigned":                           "#!/bin/sh\n",
		"usr/local/sbin/changed":                 "#!/bin/sh\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	defer l.step("running the commands of docs/enforcing.md")()
	text, err := os.ReadFile(filepath.Join(l.source, "docs/enforcing.md"))
	if err != nil {
		return err
	}
	steps, err := numberedSteps(string(text))
	if err != nil {
		return err
	}
	// The archive is not reached from here: keyutils is installed already.
	steps = strings.ReplaceAll(steps, "apt-get install ./imaseal_*.deb ./imaseal-installer_*.deb keyutils", "dpkg --force-unsafe-io -i imaseal_*.deb imaseal-installer_*.deb")
	script := `set -e
mount -t proc proc "$1/proc"; mount --bind /dev "$1/dev"; mount -t sysfs sysfs "$1/sys"
mkdir "$1/work"; mount -t tmpfs tmpfs "$1/work"; mkdir "$1/work/signed"
mount --bind "$2" "$1/work/signed"
cp "$3"/*.deb "$1/work/"; cp "$4" "$1/work/signing.crt"
chroot "$1" sh -ec "cd /work; export PATH=/usr/sbin:/usr/bin:/sbin:/bin; $5"`
	if err := l.run(ctx, "", nil, "unshare", "--mount", "sh", "-c", script, "sh", root, packages, l.packages, key.cert, steps); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(root, "usr/local/sbin/changed"), filepath.Join(root, "lab/changed")); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(root, "lab/changed"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n")
	return errors.Join(err, f.Close())
}

// numberedSteps returns the commands of the numbered sections of a document: the lines
// that are indented by four, up to the first block that is no command.
func numberedSteps(text string) (string, error) {
	var steps []string
	numbered := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if title, ok := strings.CutPrefix(line, "## "); ok {
			numbered = title[0] >= '1' && title[0] <= '9'
		}
		command, ok := strings.CutPrefix(line, "    ")
		switch {
		case !ok || !numbered:
		case strings.HasPrefix(command, "GRUB_"):
			numbered = false // what comes after is for the machine once it has booted
		default:
			steps = append(steps, command)
		}
	}
	if len(steps) < 10 {
		return "", fmt.Errorf("only %d commands were found", len(steps))
	}
	return strings.Join(steps, "\n"), nil
}
