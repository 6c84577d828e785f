package main

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"syncagent/agent"
)

const certHelp = `Make certificates for the API by TLS, for who has no other authority:

  syncagent cert ca                        once; keep ca.key off the hosts
  syncagent cert server web1 10.0.0.5      for each agent: api.tls.cert and api.tls.key
  syncagent cert client grafana            for a program that reads: cn:grafana in the policy
  syncagent cert client --key deploy.key   for an identity key, which needs no authority

Keys get mode 0600. Files are never replaced.`

// certFlags are common to the commands below cert.
type certFlags struct {
	dir, expires string
	ca, caKey    string
}

func (c *cli) certCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "cert", Short: "Make certificates for the API by TLS", Long: certHelp}
	group(cmd)
	cmd.AddCommand(c.certCACmd(), c.certServerCmd(), c.certClientCmd())
	return cmd
}

func (f *certFlags) add(cmd *cobra.Command, expires string) {
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&f.dir, "dir", ".", "write the files to `DIR`")
	cmd.Flags().StringVar(&f.expires, "expires", expires, "the certificate is good for `D`")
}

func (f *certFlags) addAuthority(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.ca, "ca", "", "certificate `FILE` of the authority (default: ca.crt in --dir)")
	cmd.Flags().StringVar(&f.caKey, "ca-key", "", "its key `FILE` (default: beside --ca, with the ending .key)")
}

func (f *certFlags) files(name string) agent.CertFiles {
	return agent.CertFiles{Cert: filepath.Join(f.dir, name+".crt"), Key: filepath.Join(f.dir, name+".key")}
}

func (f *certFlags) life() (time.Duration, error) { return parsePositive("--expires", f.expires) }

func (f *certFlags) authority() (*agent.Authority, error) {
	files := f.files("ca")
	if f.ca != "" {
		files = agent.CertFiles{Cert: f.ca, Key: strings.TrimSuffix(f.ca, filepath.Ext(f.ca)) + ".key"}
	}
	if f.caKey != "" {
		files.Key = f.caKey
	}
	return agent.LoadAuthority(files)
}

// made tells which files were written.
func (c *cli) made(files agent.CertFiles) {
	if c.json() {
		printJSON(c.stdout, map[string]string{"cert": files.Cert, "key": files.Key})
		return
	}
	c.note("wrote %s and %s", files.Cert, files.Key)
}

func (c *cli) certCACmd() *cobra.Command {
	var f certFlags
	var name string
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Make an authority: ca.crt and ca.key",
		Args:  args(0),
		RunE: func(*cobra.Command, []string) error {
			life, err := f.life()
			if err != nil {
				return err
			}
			if err := agent.CreateAuthority(f.files("ca"), name, life); err != nil {
				return err
			}
			c.made(f.files("ca"))
			return nil
		},
	}
	f.add(cmd, "3650d")
	cmd.Flags().StringVar(&name, "name", "syncagent", "what the authority calls itself")
	return cmd
}

func (c *cli) certServerCmd() *cobra.Command {
	var f certFlags
	cmd := &cobra.Command{
		Use:   "server HOST...",
		Short: "Make the certificate of an agent: server.crt and server.key",
		Long:  "Make the certificate of an agent that clients reach by these DNS names and addresses:\nserver.crt and server.key.",
		Args:  args(-1, "HOST"),
		RunE: func(_ *cobra.Command, hosts []string) error {
			life, err := f.life()
			if err != nil {
				return err
			}
			authority, err := f.authority()
			if err != nil {
				return err
			}
			if err := authority.Server(f.files("server"), hosts, life); err != nil {
				return err
			}
			c.made(f.files("server"))
			return nil
		},
	}
	f.add(cmd, "365d")
	f.addAuthority(cmd)
	return cmd
}

const certClientHelp = `Make the certificate of a client: NAME.crt and NAME.key. Rules of the policy call it
cn:NAME, and let it read. A NAME of the form spiffe://DOMAIN/PATH is a SPIFFE ID; its files
are called by the last segment.

With --key, the certificate is of that identity key and signed by it: for the API the key
says who it is. Only FILE.crt is written.`

func (c *cli) certClientCmd() *cobra.Command {
	var f certFlags
	var key string
	cmd := &cobra.Command{
		Use:   "client NAME | --key FILE",
		Short: "Make the certificate of a client, by name or of an identity key",
		Long:  certClientHelp,
		Args:  args(1),
		RunE: func(_ *cobra.Command, words []string) error {
			life, err := f.life()
			if err != nil {
				return err
			}
			if (key == "") == (len(words) == 0) {
				return usagef("want either a NAME or --key FILE")
			}
			if key != "" {
				base := filepath.Base(key)
				files := agent.CertFiles{Cert: filepath.Join(f.dir, strings.TrimSuffix(base, filepath.Ext(base))+".crt"), Key: key}
				if err := agent.WriteIdentityCertificate(files.Cert, key, life); err != nil {
					return err
				}
				if c.json() {
					c.made(files)
				} else {
					c.note("wrote %s", files.Cert)
				}
				return nil
			}
			authority, err := f.authority()
			if err != nil {
				return err
			}
			file := words[0][strings.LastIndexByte(words[0], '/')+1:]
			if file == "" || strings.HasPrefix(file, ".") || file == "ca" || file == "server" {
				return usagef("client %q: its files cannot be called that", words[0])
			}
			if err := authority.Client(f.files(file), words[0], life); err != nil {
				return err
			}
			c.made(f.files(file))
			return nil
		},
	}
	f.add(cmd, "365d")
	f.addAuthority(cmd)
	cmd.Flags().StringVar(&key, "key", "", "make it of the identity key in `FILE`")
	return cmd
}
