package platform

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/windows"

	"smime-agent/platform/internal/win32"
)

// Security identifiers that are the same on every machine (Microsoft Learn,
// "Security identifiers"). TrustedInstaller owns the system's own folders.
const (
	sidSystem           = "S-1-5-18"
	sidAdministrators   = "S-1-5-32-544"
	sidTrustedInstaller = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
	sidOwnerRights      = "S-1-3-4"
	sidCreatorOwner     = "S-1-3-0"
)

// account is who runs this process.
type account struct{ sid string }

func self() (account, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return account{}, fmt.Errorf("ask who runs this process: %w", err)
	}
	return account{user.User.Sid.String()}, nil
}

func (a account) system() bool { return a.sid == sidSystem }

// trusts says that whoever has this SID may do anything on this machine anyway,
// or is this account.
func (a account) trusts(sid string) bool {
	switch sid {
	case a.sid, sidSystem, sidAdministrators, sidTrustedInstaller:
		return true
	}
	return false
}

// owns says that what belongs to this SID counts as this account's own. What
// an installer or an administrator made belongs to Administrators.
func (a account) owns(sid string) bool {
	return sid == a.sid || a.system() && sid == sidAdministrators
}

// private is the access list of what nobody else may open: not inherited, and
// inherited by all below.
func (a account) private() string {
	if a.system() {
		return "O:SYG:SYD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
	}
	return "O:" + a.sid + "D:PAI(A;OICI;FA;;;" + a.sid + ")(A;OICI;FA;;;SY)"
}

// guarding is what a handle's security descriptor means to us.
type guarding struct {
	owner string
	// others is what all whom we do not trust may do, taken together, and below what
	// they may do in addition with what will be made in it.
	others, below windows.ACCESS_MASK
	// protected says that nothing is inherited from above.
	protected bool
}

// inspect reads the security descriptor of an open object. A list that cannot be
// understood counts as open to everybody.
func (a account) inspect(h windows.Handle, kind windows.SE_OBJECT_TYPE) (guarding, error) {
	sd, err := windows.GetSecurityInfo(h, kind, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return guarding{}, fmt.Errorf("%w: ask who owns it: %w", ErrDenied, err)
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return guarding{}, fmt.Errorf("%w: ask who owns it: %w", ErrDenied, err)
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return guarding{}, fmt.Errorf("%w: ask who may open it: %w", ErrDenied, err)
	}
	grants, err := win32.Grants(dacl)
	if err != nil {
		return guarding{}, fmt.Errorf("%w: ask who may open it: %w", ErrDenied, err)
	}
	s := guarding{owner: owner.String()}
	control, _, err := sd.Control()
	s.protected = err == nil && control&windows.SE_DACL_PROTECTED != 0
	a.weigh(&s, grants)
	return s, nil
}

// weigh adds up what those may do whom we do not trust.
func (a account) weigh(s *guarding, grants []win32.Grant) {
	for _, g := range grants {
		// Creator Owner stands in no token; Owner Rights is the owner, who is judged.
		switch sid := g.SID.String(); {
		case a.trusts(sid) || sid == sidCreatorOwner || sid == sidOwnerRights:
		case g.Below:
			s.below |= g.Mask
		default:
			s.others |= g.Mask
		}
	}
}

// accountOf looks a SID up; a domain controller may have to be asked.
func accountOf(id string) string {
	sid, err := windows.StringToSid(id)
	if err != nil {
		return ""
	}
	return accountName(sid)
}

// accountName is DOMAIN\account; empty for a SID that the system cannot resolve,
// as that of a deleted account.
func accountName(sid *windows.SID) string {
	name, domain, _, err := sid.LookupAccount("")
	if err != nil || name == "" {
		return ""
	}
	if domain == "" {
		return name
	}
	return domain + `\` + name
}

// missing tells what is not there from what is refused.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return denied(err)
}
