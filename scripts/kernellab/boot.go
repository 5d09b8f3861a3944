package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/imaseal/imaseal/scripts/kernellab/plan"
)

// A kernel can be booted.
type kernel struct {
	// name is what a person calls it.
	name string
	// device is what it calls the disk with the root file system.
	device string
	// keyring is where it takes keys.
	keyring string
	// path says that a key needs a path of trust to get into the keyring.
	path bool
	// manyPolicies says that it loads more than one policy.
	manyPolicies bool
	// ecdsa says that it verifies ECDSA.
	ecdsa bool
	// systemKey is the kind of key that signs the system which it boots.
	systemKey string
	// modules are loaded first; in a kernel of our own everything is built in.
	modules map[string][]byte
	// other is a module, a file, that is not needed; "" when there is none.
	other string
	// command returns the program that boots it. What it writes to the image is kept
	// only when that is wanted.
	command func(ctx context.Context, initramfs, image, scratch string, keep bool) *exec.Cmd
	// limit is how long a boot and its checks may take.
	limit time.Duration
}

// verifies reports whether the kernel knows the kind of signature that key makes.
func (k *kernel) verifies(key signingKey) bool {
	return k.ecdsa || strings.HasPrefix(key.name, "rsa")
}

// umlKernel returns kernel A.
func (l *lab) umlKernel(ctx context.Context) (*kernel, error) {
	program, err := l.uml(ctx)
	if err != nil {
		return nil, err
	}
	return &kernel{
		name: "A", device: "/dev/ubda", keyring: ".ima", path: true, manyPolicies: true, ecdsa: true, systemKey: "p256", limit: 10 * time.Minute,
		command: func(ctx context.Context, initramfs, image, scratch string, keep bool) *exec.Cmd {
			if !keep { // writes go to a file of their own
				image = filepath.Join(scratch, "written") + "," + image
			}
			cmd := exec.CommandContext(ctx, program, "mem=768M", "initrd="+initramfs, "ubd0="+image,
				"con=null", "con0=fd:0,fd:1", "console=tty0", "quiet", "rootfstype=ramfs", "ima_appraise=enforce", "audit=1", "umid=imaseal"+filepath.Base(scratch))
			cmd.Env = append(os.Environ(), "TMPDIR="+scratch, "HOME="+scratch)
			return cmd
		},
	}, nil
}

// boot boots k with the plan, hands each record to tell, and returns an error when
// the plan was not carried out to its end. files are those of the initramfs by their
// names there. The image stays as it was unless keep is set.
func (l *lab) boot(ctx context.Context, k *kernel, p plan.Plan, files map[string][]byte, image string, keep bool, tell func(plan.Record)) error {
	scratch, err := os.MkdirTemp("", "imaseal-lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	init, err := l.guest(ctx, scratch)
	if err != nil {
		return err
	}
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	files["/init"], files[plan.File] = init, text
	archive := filepath.Join(scratch, "initramfs")
	if err := writeInitramfs(archive, files); err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(ctx, k.limit)
	defer cancel()
	cmd := k.command(ctx, archive, image, scratch, keep)
	if p.Shell {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		return cmd.Run()
	}
	console, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	records, rest := readRecords(console, tell)
	err = cmd.Wait()
	if want := p.Records(); records < want {
		return fmt.Errorf("kernel %s ended after %d of %d records: %w\n%s",
			k.name, records, want, errors.Join(err, ctx.Err()), lastLines(rest, 30))
	}
	return nil
}

// readRecords reads a console to its end, and returns how many records there were
// and everything else.
func readRecords(console interface{ Read([]byte) (int, error) }, tell func(plan.Record)) (records int, rest string) {
	var other bytes.Buffer
	lines := bufio.NewReader(console)
	for {
		line, err := lines.ReadString('\n')
		// A firmware's control characters may stand before the first.
		_, text, ok := strings.Cut(strings.TrimRight(line, "\r\n"), plan.Marker)
		var r plan.Record
		if ok && json.Unmarshal([]byte(text), &r) == nil {
			records++
			tell(r)
		} else {
			other.WriteString(line)
		}
		if err != nil {
			return records, other.String()
		}
	}
}

// guest builds the program that is init.
func (l *lab) guest(ctx context.Context, dir string) ([]byte, error) {
	file := filepath.Join(dir, "init")
	if err := l.run(ctx, l.source, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-ldflags=-s -w",
		"-o", file, "./scripts/kernellab/guest"); err != nil {
		return nil, err
	}
	return os.ReadFile(file)
}
