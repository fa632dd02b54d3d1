<?php
// Makes agreements with PHP's SoapClient, by the description alone:
//   php soap_agreement.php URL
// For each version of SOAP: takes a template, fills in a job and a deadline, makes the
// agreement and reads its states to the end; makes one for capacity and ends it; offers what
// can't be had, and reads why. Prints a line for each, exits 1 if one failed.

const P = 'http://portolan-project.org/ns/2026/agreement';
const JSDL = 'http://schemas.ggf.org/jsdl/2005/11/jsdl';
const POSIX = 'http://schemas.ggf.org/jsdl/2005/11/jsdl-posix';
const PATIENCE = 120; // seconds

$url = $argv[1];
$failed = false;

function want($condition, $what): void
{
    if (!$condition) {
        throw new Exception(is_string($what) ? $what : print_r($what, true));
    }
}

function until(string $what, callable $ask, callable $so)
{
    for ($i = 0; $i < 10 * PATIENCE; $i++) {
        $answer = $ask();
        if ($so($answer)) {
            return $answer;
        }
        usleep(100_000);
    }
    throw new Exception("never $what: " . print_r($answer, true));
}

function job(string $script): string
{
    return '<j:JobDefinition xmlns:j="' . JSDL . '" xmlns:x="' . POSIX . '"><j:JobDescription><j:Application><x:POSIXApplication>'
        . '<x:Executable>/bin/sh</x:Executable><x:Argument>-c</x:Argument><x:Argument>' . htmlspecialchars($script, ENT_XML1) . '</x:Argument>'
        . '<x:WallTimeLimit>60</x:WallTimeLimit></x:POSIXApplication></j:Application></j:JobDescription></j:JobDefinition>';
}

function ours(string $local, string $content): string
{
    return "<p:$local xmlns:p=\"" . P . "\">$content</p:$local>";
}

function moment(int $seconds): string
{
    return gmdate('Y-m-d\TH:i:s\Z', time() + $seconds);
}

/** What there are none, one or many of: a list. */
function all($x): array
{
    return $x === null ? [] : (is_array($x) ? $x : [$x]);
}

function drive(string $url, int $version): void
{
    global $failed;
    $mode = $version === SOAP_1_1 ? 'soap11' : 'soap12';
    $client = new SoapClient("$url?wsdl", [
        'soap_version' => $version, 'trace' => true, 'exceptions' => true, 'cache_wsdl' => WSDL_CACHE_NONE,
    ]);
    // The one element of any kind that is a resource's document.
    $document = function (array $headers = []) use ($client) {
        $any = (array) $client->__soapCall('GetResourcePropertyDocument', [[]], null, $headers)->any;
        want(count($any) === 1, $any);
        return reset($any);
    };
    // The offer that a template is, to be filled in; there is one once the gateway knows its site.
    $template = function (string $kind) use ($document, $mode) {
        $named = function () use ($document, $kind) {
            foreach (all($document()->Template ?? null) as $t) {
                if ($t->Name === "$kind@hosts/shell") {
                    return $t;
                }
            }
        };
        $t = until('a template', $named, fn ($t) => $t !== null);
        return (object) ['Name' => "php $mode", 'Context' => $t->Context, 'Terms' => $t->Terms];
    };
    $fill = function (object $offer, string $term, string $content): void {
        foreach (all($offer->Terms->All->ServiceDescriptionTerm) as $d) {
            if ($d->Name === $term) {
                $d->any = $content;
                return;
            }
        }
        throw new Exception("the template has no term $term");
    };
    // The reference parameter of the EPR, as a header.
    $key = function (object $answer): array {
        $any = (array) $answer->CreatedAgreementEPR->ReferenceParameters->any;
        want(isset($any['AgreementKey']) && str_starts_with($answer->CreatedAgreementEPR->Address->_, 'http'), $answer);
        return [new SoapHeader(P, 'AgreementKey', $any['AgreementKey'])];
    };
    $states = function (array $headers) use ($document): array {
        $d = $document($headers);
        $terms = [];
        foreach (array_merge(all($d->GuaranteeTermState ?? null), all($d->ServiceTermState ?? null)) as $s) {
            $terms[$s->termName] = $s->State;
        }
        return [$d->AgreementState->State, $terms, $d];
    };
    $finished = function (array $headers) use ($states): void {
        [$now, $terms, $d] = until('complete', fn () => $states($headers), fn ($x) => !in_array($x[0], ['Pending', 'Observed']));
        want($now === 'Complete' && $terms['finish'] === 'Fulfilled' && $terms['job'] === 'Completed', $d);
        // Why it is so stands beside the states.
        want(count(all($d->AgreementState->Agreement->Event)) >= 3, $d);
        want(str_contains(print_r($d->ServiceTermState, true), '>Finished</'), $d);
    };
    $capacity = fn (int $cpus) => ours('Capacity', '<p:Site>hosts</p:Site><p:Share>shell</p:Share><p:CPUs>' . $cpus . '</p:CPUs>'
        . '<p:StartTime>' . moment(7200) . '</p:StartTime><p:EndTime>' . moment(10800) . '</p:EndTime>');
    $deeds = [
        'templates' => function () use ($template) {
            foreach (['best-effort', 'finish-by', 'advance-reservation', 'capacity'] as $kind) {
                $template($kind);
            }
        },
        'finish_by' => function () use ($client, $template, $fill, $key, $finished) {
            $o = $template('finish-by');
            $fill($o, 'job', job('echo done'));
            $fill($o, 'finishBy', ours('FinishBy', moment(1800)));
            $finished($key($client->CreateAgreement(['AgreementOffer' => $o])));
        },
        'pending' => function () use ($client, $template, $fill, $key, $finished) {
            $o = $template('finish-by');
            $fill($o, 'job', job('echo done'));
            $fill($o, 'finishBy', ours('FinishBy', moment(1800)));
            $finished($key($client->CreatePendingAgreement(['AgreementOffer' => $o])));
        },
        'reserve' => function () use ($client, $template, $fill, $key, $states) {
            $o = $template('advance-reservation');
            $fill($o, 'job', job('exit 0'));
            $fill($o, 'window', ours('Window', '<p:StartTime>' . moment(2) . '</p:StartTime><p:EndTime>' . moment(900) . '</p:EndTime>'));
            $headers = $key($client->CreateAgreement(['AgreementOffer' => $o]));
            [$now, $terms, $d] = until('complete', fn () => $states($headers), fn ($x) => $x[0] !== 'Observed');
            want($now === 'Complete' && $terms['start'] === 'Fulfilled' && $terms['job'] === 'Completed', $d);
        },
        'capacity' => function () use ($client, $template, $fill, $key, $states, $capacity) {
            $o = $template('capacity');
            $fill($o, 'capacity', $capacity(1));
            $headers = $key($client->CreateAgreement(['AgreementOffer' => $o]));
            [$now, $terms, $d] = $states($headers);
            want($now === 'Observed' && $terms['capacity'] === 'NotReady', $d);
            $why = [['any' => '<w:Why xmlns:w="urn:test">no longer needed</w:Why>']];
            $client->__soapCall('Terminate', $why, null, $headers);
            [$now, , $d] = until('terminated', fn () => $states($headers), fn ($x) => !str_ends_with($x[0], 'AndTerminating'));
            want($now === 'Terminated', $d);
            try {
                $client->__soapCall('Terminate', $why, null, $headers);
            } catch (SoapFault $f) {
                want(str_contains($f->getMessage(), 'Terminated'), $f->getMessage());
                return;
            }
            throw new Exception('it was ended twice');
        },
        'refused' => function () use ($client, $template, $fill, $capacity) {
            $o = $template('capacity');
            $fill($o, 'capacity', $capacity(5000));
            try {
                $client->CreateAgreement(['AgreementOffer' => $o]);
            } catch (SoapFault $f) {
                want(str_contains($f->getMessage(), '5000') && str_contains($f->getMessage(), 'cpus'), $f->getMessage());
                // What is typed in the description is typed here.
                $detail = $f->detail->ContinuingFault;
                want($detail->Refusal->Kind !== '' && $detail->Timestamp !== '', $f->detail);
                want(str_contains(all($detail->Description)[0], '5000'), $f->detail);
                return;
            }
            throw new Exception('the offer was taken');
        },
        'unknown' => function () use ($states) {
            try {
                $states([new SoapHeader(P, 'AgreementKey', 'nothing')]);
            } catch (SoapFault $f) {
                want(isset($f->detail->ResourceUnknownFault), $f->detail ?? 'there is no detail');
                return;
            }
            throw new Exception('there is an agreement that there is not');
        },
    ];
    foreach ($deeds as $name => $deed) {
        try {
            $deed();
            echo "ok $name $mode\n";
        } catch (Throwable $e) {
            $failed = true;
            echo "FAIL $name $mode " . get_class($e) . ': ' . preg_replace('/\s+/', ' ', substr($e->getMessage(), 0, 3000)) . "\n";
        }
    }
}

drive($url, SOAP_1_1);
drive($url, SOAP_1_2);
exit($failed ? 1 : 0);
