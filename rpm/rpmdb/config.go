package rpmdb

import "github.com/imaseal/imaseal/sign/installed"

// Conffiles says which %config files carry a label on this system, in the words of
// [installed.ApplyOptions]: as rpm's plugin does it those that are executable, or all
// where its macro _ima_sign_config_files asks for them. Below another root, whose
// configuration is not read, the executable ones.
func (db *DB) Conffiles() installed.Conffiles {
	if db.allConfig {
		return installed.ConffilesAll
	}
	return installed.ConffilesExecutable
}
