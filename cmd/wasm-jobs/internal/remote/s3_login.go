package remote

import (
	"cmp"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// metadata is where a machine of EC2 has its role.
const metadata = "http://169.254.169.254"

// serviceClient asks services that are near, or absent. Without encryption they are on the
// machine, so that no proxy may see the answer.
var serviceClient = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{Proxy: func(r *http.Request) (*url.URL, error) {
	if r.URL.Scheme == "http" {
		return nil, nil
	}
	return http.ProxyFromEnvironment(r)
}}}

// unsigned stands for no credentials: a cache keeps only those with keys.
var unsigned = aws.Credentials{AccessKeyID: "none", SecretAccessKey: "none", Source: "unsigned"}

// newLogin finds credentials in variables, in the shared file with the profile of
// AWS_PROFILE, and then in the service of the container or machine. Without any, they are
// [unsigned]. They are asked for again before they expire.
func newLogin() aws.CredentialsProvider {
	return aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		if c := variables(); c.HasKeys() {
			return c, nil
		}
		if c := profile(); c.HasKeys() {
			return c, nil
		}
		c, err := service(ctx)
		if ctx.Err() != nil {
			return c, ctx.Err()
		}
		if err != nil || !c.HasKeys() {
			return unsigned, nil // the store says if it needs some
		}
		return c, nil
	}), func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = 5 * time.Minute })
}

func variables() aws.Credentials {
	return aws.Credentials{
		AccessKeyID:     firstEnv("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"),
		SecretAccessKey: firstEnv("AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"),
		SessionToken:    os.Getenv("AWS_SESSION_TOKEN"),
	}
}

// profile returns the credentials of a profile in AWS_SHARED_CREDENTIALS_FILE or
// ~/.aws/credentials, or none.
func profile() aws.Credentials {
	path := os.Getenv("AWS_SHARED_CREDENTIALS_FILE")
	if home, err := os.UserHomeDir(); path == "" && err == nil {
		path = filepath.Join(home, ".aws", "credentials")
	}
	content, err := readSmall(path)
	if err != nil {
		return aws.Credentials{}
	}
	name := cmp.Or(os.Getenv("AWS_PROFILE"), "default")
	values := valuesOf(content, name)
	return aws.Credentials{
		AccessKeyID:     values["aws_access_key_id"],
		SecretAccessKey: values["aws_secret_access_key"],
		SessionToken:    values["aws_session_token"],
	}
}

// readSmall reads a regular file of at most 1 MiB.
func readSmall(path string) (string, error) {
	stat, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !stat.Mode().IsRegular() || stat.Size() > 1<<20 {
		return "", errors.New("not a small file")
	}
	content, err := os.ReadFile(path)
	return string(content), err
}

// valuesOf returns the lines "name = value" below "[section]".
func valuesOf(content, section string) map[string]string {
	found, inside := map[string]string{}, false
	for line := range strings.Lines(content) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			inside = strings.TrimSpace(line[1:len(line)-1]) == section
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if ok && inside && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ";") {
			found[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
		}
	}
	return found
}

// service asks the service that the variables name: that of Kubernetes, of a container, or
// of the machine.
func service(ctx context.Context) (aws.Credentials, error) {
	relative, full := os.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"), os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
	switch {
	case os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE") != "":
		return webIdentity(ctx)
	case relative != "":
		return container(ctx, "http://169.254.170.2"+relative)
	case full != "":
		return container(ctx, full)
	case strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true"):
		return aws.Credentials{}, nil
	}
	return machine(ctx, metadata)
}

// webIdentity exchanges the token of a Kubernetes service account.
func webIdentity(ctx context.Context) (aws.Credentials, error) {
	token, err := readSmall(os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE"))
	if err != nil {
		return aws.Credentials{}, err
	}
	endpoint := os.Getenv("AWS_ENDPOINT_URL_STS")
	if region := firstEnv("AWS_REGION", "AWS_DEFAULT_REGION"); endpoint == "" && region != "" {
		endpoint = "https://sts." + region + "." + domain(region)
	} else if endpoint == "" {
		endpoint = "https://sts.amazonaws.com"
	}
	form := url.Values{
		"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleArn": {os.Getenv("AWS_ROLE_ARN")},
		"RoleSessionName": {cmp.Or(os.Getenv("AWS_ROLE_SESSION_NAME"), "wasm-jobs")}, "WebIdentityToken": {strings.TrimSpace(token)},
	}
	content, err := fetch(ctx, http.MethodPost, endpoint, map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, form.Encode())
	var c struct {
		AccessKeyId     string    `xml:"AssumeRoleWithWebIdentityResult>Credentials>AccessKeyId"`
		SecretAccessKey string    `xml:"AssumeRoleWithWebIdentityResult>Credentials>SecretAccessKey"`
		SessionToken    string    `xml:"AssumeRoleWithWebIdentityResult>Credentials>SessionToken"`
		Expiration      time.Time `xml:"AssumeRoleWithWebIdentityResult>Credentials>Expiration"`
	}
	if err == nil {
		err = xml.Unmarshal(content, &c)
	}
	return aws.Credentials{
		AccessKeyID: c.AccessKeyId, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken,
		CanExpire: true, Expires: c.Expiration,
	}, err
}

// container asks the agent of a container: of ECS, or of EKS, whose token is in a file.
func container(ctx context.Context, address string) (aws.Credentials, error) {
	u, err := url.Parse(address)
	if err != nil {
		return aws.Credentials{}, err
	}
	switch host := u.Hostname(); {
	case u.Scheme == "https", isLocal(host), host == "169.254.170.2", host == "169.254.170.23", host == "fd00:ec2::23":
	default:
		return aws.Credentials{}, errors.New("not encrypted")
	}
	token := os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN")
	if path := os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"); path != "" {
		if token, err = readSmall(path); err != nil {
			return aws.Credentials{}, err
		}
	}
	return fetchRole(ctx, address, map[string]string{"Authorization": strings.TrimSpace(token)})
}

// machine asks for the role of a machine. The token protects from programs that forward
// requests; where it cannot come, as in a container, the answer may do without.
func machine(ctx context.Context, endpoint string) (aws.Credentials, error) {
	header := map[string]string{}
	token, err := fetch(ctx, http.MethodPut, endpoint+"/latest/api/token", map[string]string{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": "21600"}, "")
	if err == nil {
		header["X-Aws-Ec2-Metadata-Token"] = string(token)
	}
	roles := endpoint + "/latest/meta-data/iam/security-credentials/"
	names, err := fetch(ctx, http.MethodGet, roles, header, "")
	if err != nil {
		return aws.Credentials{}, err
	}
	name, _, _ := strings.Cut(strings.TrimSpace(string(names)), "\n")
	return fetchRole(ctx, roles+url.PathEscape(name), header)
}

// fetchRole reads credentials in JSON.
func fetchRole(ctx context.Context, address string, header map[string]string) (aws.Credentials, error) {
	content, err := fetch(ctx, http.MethodGet, address, header, "")
	var role struct {
		AccessKeyId, SecretAccessKey, Token string
		Expiration                          time.Time
	}
	if err == nil {
		err = json.Unmarshal(content, &role)
	}
	return aws.Credentials{
		AccessKeyID: role.AccessKeyId, SecretAccessKey: role.SecretAccessKey, SessionToken: role.Token,
		CanExpire: !role.Expiration.IsZero(), Expires: role.Expiration,
	}, err
}

// fetch returns the answer of a service. Headers without a value are not sent.
func fetch(ctx context.Context, method, address string, header map[string]string, body string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, value := range header {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	resp, err := serviceClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(resp)
	}
	return io.ReadAll(io.LimitReader(resp.Body, 1<<20))
}
