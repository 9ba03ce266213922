package site

// The files of a new directory. Text in them is JSON-quoted where it comes from
// outside, which is YAML too.
const (
	configText = `# What this server listens on, and its times. Read when the server starts.

# For agents and administrators: gRPC over TLS 1.3.
listen: {{printf "%q" .Listen}}
# For revocation lists and CA certificates: plain HTTP.
web: {{printf "%q" .Web}}
# The administrators' web page; empty means none. On an address of this machine
# alone, such as 127.0.0.1:8081, it is plain HTTP for whoever is on the machine; on any other it is
# HTTPS and asks for an administrator's certificate.
admin_web: {{printf "%q" .AdminWeb}}
# Figures for Prometheus (/metrics) and health (/health) over plain HTTP; empty means none. They name
# no person and no machine, but listen where only your monitoring reaches them.
metrics: ""
# Who changed what, one JSON object a line; empty means none. Rotate it by renaming it.
audit_log: audit.log
# Names and addresses of this server, for its TLS certificate. The first is the main one.
hosts:
{{- range .Hosts}}
  - {{printf "%q" .}}
{{- end}}
# Beginning of the URLs in certificates; other machines must reach it.
public_url: {{printf "%q" .PublicURL}}

# The policy OID in certificates: the one that the CA/Browser Forum reserves
# (it asserts compliance with the S/MIME Baseline Requirements), the company's own, or both.
reserved_policy_oid: {{if .OwnPolicy}}false{{else}}true{{end}}
own_policy_oid: {{printf "%q" .OwnPolicy}}

# Whether certificates name this server's OCSP responder, beside the revocation list. It answers at
# public_url + /ocsp in any case.
ocsp: true

# Where the records are: in records.db here, unless "postgres" names a database, for more than one machine: as libpq
# has it, without the password, such as "host=db.example.com dbname=smime user=smime sslmode=verify-full". "{{.Command}} store
# copy" moves records.db there.
store:
  postgres: {{printf "%q" .Postgres}}
  password_file: {{printf "%q" .PasswordFile}}       # in this directory, readable by the server alone; empty: libpq's own password file, or none

# How often agents ask: idle, and while something is under way.
sync_interval: 1h
pending_interval: 1m
# Life of a device's TLS certificate, and how long after its end it can still be renewed.
identity_life: 30d
identity_grace: 30d
# How many calls of agents may be under way at once; more are told to come back after some seconds.
max_calls: 4096
# How many connections may be open at once, and how many of them in the TLS handshake; more are closed, and come
# back by themselves. An eighth of the connections may be without an identity, half of the handshakes from one address.
max_connections: 16384
max_handshakes: 2048
# The same for the HTTP side, "web": revocation lists and OCSP. Half of them may be from one address.
max_web_connections: 1024

# Another CA over EST (RFC 7030), for profiles whose policy says "ca: est". Without a URL there is none.
est:
  url: ""                 # https://ca.example.com/.well-known/est
  anchors: ""             # PEM file of the roots of what it issues
  identity: ""            # PEM file with certificate and key, to sign in by TLS; readable by the server alone
  user: ""
  password_file: ""       # in this directory, readable by the server alone
  ca_file: ""             # PEM file of the roots of its TLS certificate; empty: the system's

# An LDAP directory where others find the certificates to encrypt to. Without a URL nothing is published;
# "{{.Command}} directory" shows what became of each mailbox.
directory:
  url: ""                 # ldaps://ldap.example.com, ldap://ldap.example.com, or ldapi://%2Frun%2Fslapd%2Fldapi
  security: starttls      # for ldap:// alone; none only for a directory on this machine
  bind_dn: ""             # may write userCertificate and userSMIMECertificate, and read them
  password_file: ""       # in this directory, readable by the server alone
  base: ""                # below which people are, such as ou=people,dc=example,dc=com
  filter: "(mail={mailbox})"
  flavour: openldap       # or ad: names the attributes without ";binary"
  ca_file: ""             # PEM file of the roots of its TLS certificate; empty: the system's

# Reminders 60, 30 and 7 days before a certificate ends that was not renewed by itself, to its
# owner and to the administrator. Without a server none are sent.
mail:
  server: ""              # host:port, such as smtp.example.com:587
  security: starttls      # or tls, or none for a mail server on this machine
  from: ""
  administrator: ""
  user: ""
  password_file: ""       # in this directory, readable by the server alone
`

	policyText = `# Who gets which certificate. After a change:
#   {{.Command}} policy check    says what is wrong, and what would change
#   {{.Command}} policy apply    puts it in force

organization:
  name: {{printf "%q" .Organization}}
  country: {{printf "%q" .Country}}
  identifier: {{printf "%q" .OrganizationID}}

# Whom people may ask; stands in the prompt.
contact: "helpdesk@example.com"

# auto: issued at once. administrator: each request waits for "{{.Command}} request approve".
approval: auto

# Whether agents make the root trusted for mail in the users' stores.
install_anchors: true

# The first rule that names a person's department is the one that holds.
rules:
  - departments: ["*"]
    # employee-dual, or employee-sign with employee-encrypt, department-dual, mailbox-dual
    profiles: [employee-dual]
    # ask, notify or silent
    consent: ask
    max_postponements: 5
    stores: [auto]
    renewal:
      before: 60d
    note:
      en: "With this certificate you sign and encrypt your mail."
      zh: "此证书用于对您的电子邮件进行签名和加密。"
`

	peopleText = `account,mailbox,given_name,surname,display_name,department
` + exampleAccount + `,alice@example.com,Alice,Example,Alice Example,Sales
`
)
