package main

import (
	"fmt"
	"io"
	"os"
	"path"
)

// An initramfs is the root that a kernel starts with: an archive of the form that
// Documentation/driver-api/early-userspace/buffer-format.rst calls newc.
type initramfs struct {
	w       io.Writer
	offset  int64
	inode   int
	folders map[string]bool
	err     error
}

// writeInitramfs writes an archive of files, whose keys are absolute paths. Each is
// executable.
func writeInitramfs(name string, files map[string][]byte) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	a := &initramfs{w: f, folders: map[string]bool{"/": true, ".": true}}
	for file, content := range files {
		a.folder(path.Dir(file))
		a.entry(file[1:], 0o100755, content)
	}
	a.entry("TRAILER!!!", 0, nil)
	if a.err != nil {
		return a.err
	}
	return f.Close()
}

func (a *initramfs) folder(name string) {
	if a.folders[name] {
		return
	}
	a.folders[name] = true
	a.folder(path.Dir(name))
	a.entry(name[1:], 0o040755, nil)
}

func (a *initramfs) entry(name string, mode int, content []byte) {
	a.inode++
	a.write([]byte(fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)))
	a.write([]byte(name + "\x00"))
	a.pad()
	a.write(content)
	a.pad()
}

// pad brings the archive to a multiple of four bytes.
func (a *initramfs) pad() { a.write(make([]byte, -a.offset&3)) }

func (a *initramfs) write(p []byte) {
	if a.err != nil {
		return
	}
	n, err := a.w.Write(p)
	a.offset += int64(n)
	a.err = err
}
