package atomicfile

import (
	"fmt"
	"io"
	"os"
)

// CopyRange copies the n bytes of src from offset off to dst. Where both are
// files the kernel copies, and shares blocks where the file system can. It leaves
// the position of src alone.
func CopyRange(dst io.Writer, src io.ReaderAt, off, n int64) error {
	if n == 0 {
		return nil
	}
	var copied int64
	var err error
	if file, ok := src.(*os.File); ok {
		copied, err = copyFromFile(dst, file, off, n)
	} else {
		copied, err = io.Copy(dst, io.NewSectionReader(src, off, n))
	}
	if err == nil && copied != n {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("copying %d bytes from offset %d: %w", n, off, err)
	}
	return nil
}

// copyFromFile reads through a descriptor of its own, as copy_file_range by way of
// os.File.ReadFrom moves the position.
func copyFromFile(dst io.Writer, src *os.File, off, n int64) (int64, error) {
	if _, ok := dst.(*os.File); !ok {
		return io.Copy(dst, io.NewSectionReader(src, off, n))
	}
	own, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", src.Fd()))
	if err != nil {
		return io.Copy(dst, io.NewSectionReader(src, off, n))
	}
	defer own.Close()
	if _, err := own.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	return io.Copy(dst, io.LimitReader(own, n))
}
