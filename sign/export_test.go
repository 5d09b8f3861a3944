package sign

// ForgetAll lets s behave as after more digests than it can remember.
func (s *Signer) ForgetAll() { s.room, s.remembered = 0, map[string]*onceSigned{} }
