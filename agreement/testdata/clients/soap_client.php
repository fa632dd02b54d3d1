<?php
// Makes an agreement with PHP's SoapClient, by the description alone:
//   php soap_client.php URL
// Gets the templates, makes an agreement, reads its states, asks for its end,
// negotiates another, over SOAP 1.1 and 1.2. Prints a line for each, exits 1 if one failed.

const WSAG = 'http://schemas.ggf.org/graap/2007/03/ws-agreement';
const P = 'http://portolan-project.org/ns/2026/agreement';
const JSDL = 'http://schemas.ggf.org/jsdl/2005/11/jsdl';

$url = $argv[1];
$failed = false;

function want($condition, string $what): void
{
    if (!$condition) {
        throw new Exception($what);
    }
}

function drive(string $url, int $version): void
{
    global $failed;
    $mode = $version === SOAP_1_1 ? 'soap11' : 'soap12';
    $client = new SoapClient("$url?wsdl", [
        'soap_version' => $version, 'trace' => true, 'exceptions' => true, 'cache_wsdl' => WSDL_CACHE_NONE,
    ]);
    $made = [];
    // A qualified name in content needs its prefix in scope: the parameter is given as XML.
    $property = function (string $name, array $headers = []) use ($client): string {
        $xml = '<rp:GetResourceProperty xmlns:rp="http://docs.oasis-open.org/wsrf/rp-2" xmlns:wsag="' . WSAG . '">wsag:' . $name . '</rp:GetResourceProperty>';
        $client->__soapCall('GetResourceProperty', [new SoapVar($xml, XSD_ANYXML)], null, $headers);
        return $client->__getLastResponse();
    };
    $offer = function (string $id): array {
        $job = '<j:JobDefinition xmlns:j="' . JSDL . '"><j:JobDescription/></j:JobDefinition>';
        return ['AgreementOffer' => [
            'Name' => 'mine',
            'Context' => ['ServiceProvider' => 'AgreementResponder', 'TemplateId' => $id, 'TemplateName' => 'batch'],
            'Terms' => ['All' => [
                'ServiceDescriptionTerm' => [['Name' => 'job', 'ServiceName' => 'run', 'any' => $job]],
                'GuaranteeTerm' => [[
                    'Name' => 'soon', 'Obligated' => 'ServiceProvider', 'ServiceScope' => [['ServiceName' => 'run']],
                    'ServiceLevelObjective' => ['KPITarget' => ['KPIName' => 'queueWait', 'CustomServiceLevel' => ['any' => 'PT10M']]],
                    'BusinessValueList' => ['Importance' => 3],
                ]],
            ]],
        ]];
    };
    $deeds = [
        'templates' => function () use ($property) {
            $x = $property('Template');
            want(preg_match('~<wsag:Template [^>]*wsag:TemplateId="1"[^>]*><wsag:Name>batch<~', $x) === 1, $x);
        },
        'create' => function () use ($client, $offer, &$made) {
            $client->CreateAgreement($offer('1'));
            want(preg_match('~:AgreementKey[^>]*>([^<]+)<~', $client->__getLastResponse(), $m) === 1, $client->__getLastResponse());
            $made['headers'] = [new SoapHeader(P, 'AgreementKey', $m[1])];
        },
        'states' => function () use ($client, $property, &$made) {
            $client->__soapCall('GetResourcePropertyDocument', [[]], null, $made['headers']);
            want(str_contains($client->__getLastResponse(), '<wsag:AgreementProperties'), $client->__getLastResponse());
            $x = $property('AgreementState', $made['headers']);
            want(str_contains($x, '<wsag:State>Observed<'), $x);
            $x = $property('GuaranteeTermState', $made['headers']);
            want(preg_match('~wsag:termName="soon"[^>]*><wsag:State>NotDetermined<~', $x) === 1, $x);
            $x = $property('ServiceTermState', $made['headers']);
            want(preg_match('~wsag:termName="job"[^>]*><wsag:State>NotReady<~', $x) === 1, $x);
        },
        'terminate' => function () use ($client, $property, &$made) {
            $client->__soapCall('Terminate', [['any' => '<w:Why xmlns:w="urn:test">no longer needed</w:Why>']], null, $made['headers']);
            $x = $property('AgreementState', $made['headers']);
            want(str_contains($x, '<wsag:State>ObservedAndTerminating<'), $x);
        },
        'refused' => function () use ($client, $offer) {
            try {
                $client->CreateAgreement($offer('77'));
            } catch (SoapFault $f) {
                want(isset($f->detail->ContinuingFault), print_r($f->detail ?? null, true));
                want(str_contains($client->__getLastResponse(), 'NoSuchTemplate'), $client->__getLastResponse());
                return;
            }
            throw new Exception('the offer was taken');
        },
        'negotiate' => function () use ($url, $version, $offer) {
            $client = new SoapClient("$url?wsdl=negotiation", [
                'soap_version' => $version, 'trace' => true, 'exceptions' => true, 'cache_wsdl' => WSDL_CACHE_NONE,
            ]);
            $client->InitiateNegotiation(['NegotiationContext' => [
                'NegotiationType' => ['Negotiation' => ['any' => '']], 'AgreementResponder' => 'NegotiationResponder',
            ]]);
            want(preg_match('~:NegotiationKey[^>]*>([^<]+)<~', $client->__getLastResponse(), $m) === 1, $client->__getLastResponse());
            $headers = [new SoapHeader(P, 'NegotiationKey', $m[1])];
            $o = $offer('1')['AgreementOffer'];
            $o['OfferId'] = 'mine';
            $o['NegotiationOfferContext'] = ['CounterOfferTo' => '1', 'Creator' => 'NegotiationInitiator', 'State' => ['Solicited' => ['any' => '']]];
            $o['NegotiationConstraints'] = ['Item' => [['Name' => 'name', 'Type' => 'Required', 'Location' => "//*[local-name()='KPIName']", 'ItemConstraint' => ['any' => '']]]];
            $client->__soapCall('Negotiate', [['NegotiationOffer' => [$o]]], null, $headers);
            $x = $client->__getLastResponse();
            want(str_contains($x, '<neg:CounterOfferTo>mine<') && str_contains($x, '<neg:Acceptable>'), $x);
            $client->__soapCall('Terminate', [['any' => '<w:Why xmlns:w="urn:test">no longer needed</w:Why>']], null, $headers);
            try {
                $client->__soapCall('GetResourcePropertyDocument', [[]], null, $headers);
            } catch (SoapFault $f) {
                want(isset($f->detail->ResourceUnknownFault), print_r($f->detail ?? null, true));
                return;
            }
            throw new Exception('a negotiation that was ended is there');
        },
    ];
    foreach ($deeds as $name => $deed) {
        try {
            $deed();
            echo "ok $name $mode\n";
        } catch (Throwable $e) {
            $failed = true;
            echo "FAIL $name $mode " . get_class($e) . ': ' . $e->getMessage() . "\n" . $client->__getLastRequest() . "\n";
        }
    }
}

drive($url, SOAP_1_1);
drive($url, SOAP_1_2);
exit($failed ? 1 : 0);
