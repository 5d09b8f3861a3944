package dpkg

import (
	"context"
	"fmt"
)

// A State is how far the hook is in use.
type State struct {
	// Scope is for whom the hook runs, as far as the files tell.
	Scope Scope
	// Hook says that the hook is installed at all.
	Hook bool
	// DivertedBy is the package that diverts dpkg-deb, "LOCAL" for an
	// administrator, empty for none.
	DivertedBy string
	// Name and Kept are what stands under dpkg-deb's name and under its second one.
	Name, Kept Holding
	// APT says that apt's setting is there.
	APT bool
	// Problems says what is not as enable or disable leaves it, and what to do.
	Problems []string
}

// State looks at the system, which it does not change.
func (a *Activation) State(ctx context.Context) (*State, error) {
	s := &State{Scope: ScopeNone}
	var err error
	if s.Name, err = a.Holds(NamePath); err != nil {
		return nil, err
	}
	if s.Kept, err = a.Holds(KeptPath); err != nil {
		return nil, err
	}
	hook, err := a.Holds(hookPath)
	if err != nil {
		return nil, err
	}
	s.Hook = hook == HoldsHook
	if s.DivertedBy, err = a.divertedBy(ctx); err != nil && s.Name != HoldsNothing {
		return nil, err
	}
	if _, err := a.root.Lstat(below(aptFile)); err == nil {
		s.APT, s.Scope = true, ScopeAPT
	}
	if s.Name == HoldsHook {
		s.Scope = ScopeAll
	}
	problem := func(format string, args ...any) { s.Problems = append(s.Problems, fmt.Sprintf(format, args...)) }
	switch whole := s.DivertedBy == HookOwner && s.Name == HoldsHook && s.Kept == HoldsOther; {
	case whole || s.DivertedBy == "" && s.Name != HoldsHook && s.Kept == HoldsNothing:
	case s.Name != HoldsOther && s.Kept != HoldsOther:
		problem("%v", errLost)
	case s.DivertedBy != "" && s.DivertedBy != HookOwner:
		problem("%s is diverted by %s, not by %s", NamePath, s.DivertedBy, HookOwner)
	default:
		problem("enabling or disabling was interrupted: dpkg-deb works; run imaseal hook enable --scope all, or imaseal hook disable")
	}
	switch {
	case s.Scope != ScopeNone && !s.Hook:
		problem("%s is missing: install the package %s again", hookPath, HookOwner)
	case s.Name == HoldsHook && !a.same(hookPath, NamePath):
		problem("%s is another version than %s: run imaseal hook enable --scope all", NamePath, hookPath)
	}
	return s, nil
}
