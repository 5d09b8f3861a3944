package main

import (
	"testing"

	"github.com/imaseal/imaseal/sign/installed"
	"github.com/imaseal/imaseal/sign/xattr"
)

// TestSystemProgress: on a terminal a bar with files and bytes, nothing with --quiet.
func TestSystemProgress(t *testing.T) {
	for name, flags := range map[string]*output{"bar": {}, "quiet": {quiet: true}, "json": {json: true}} {
		t.Run(name, func(t *testing.T) {
			root, err := xattr.OpenRoot(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			term := openTerminal(t)
			flags.stderr, flags.terminal = term.slave, true
			s := &installed.System{Root: root}
			finish := systemProgress(flags, s)
			if name != "bar" && s.Expect != nil {
				t.Fatal("the work is counted for nobody")
			}
			if name != "bar" {
				s.Expect, s.Progress = func(int) {}, func(int, int64) {}
			}
			// Twice, as apply --from does.
			for i, want := range []string{"3 of 10 files, 1.0 MiB", "3 of 20 files, 2.0 MiB"} {
				s.Expect(10 * (i + 1))
				s.Progress(3, 1<<20)
				if name == "bar" {
					term.wait(want, 1)
				}
			}
			finish()
			term.slave.Close()
			<-term.closed
			if shown := term.text.String(); name != "bar" && shown != "" {
				t.Errorf("shown: %q", shown)
			}
		})
	}
}
