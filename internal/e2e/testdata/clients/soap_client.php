<?php
// Drives a BES endpoint with PHP's SoapClient, as its users would:
//   php soap_client.php URL
// Every operation of the factory and management port types, over SOAP 1.1 and
// 1.2, with and without WS-Addressing. Prints a line for each, exits 1 if one
// failed.

const BF = 'http://schemas.ggf.org/bes/2006/08/bes-factory';
const BM = 'http://schemas.ggf.org/bes/2006/08/bes-management';
const POSIX = 'http://schemas.ggf.org/jsdl/2005/11/jsdl-posix';
const WSA = 'http://www.w3.org/2005/08/addressing';
const STATES = ['Pending', 'Running', 'Cancelled', 'Failed', 'Finished'];

$url = $argv[1];
$failed = false;

function want($condition, string $what): void
{
    if (!$condition) {
        throw new Exception($what);
    }
}

function check(string $name, string $mode, callable $deed)
{
    global $failed;
    try {
        $result = $deed();
        echo "ok $name $mode\n";
        return $result;
    } catch (Throwable $e) {
        $failed = true;
        echo "FAIL $name $mode " . str_replace("\n", ' ', get_class($e) . ': ' . $e->getMessage()) . "\n";
        return null;
    }
}

function items($x): array
{
    return is_array($x) ? $x : [$x];
}

function drive(string $url, int $version, bool $addressing): void
{
    $mode = ($version === SOAP_1_1 ? 'soap11' : 'soap12') . ($addressing ? ' wsa' : '');
    $client = new SoapClient("$url?wsdl", [
        'soap_version' => $version, 'trace' => true, 'exceptions' => true, 'cache_wsdl' => WSDL_CACHE_NONE,
    ]);
    $call = function (string $operation, array $arguments) use ($client, $addressing, $url) {
        $headers = [];
        if ($addressing) {
            $management = str_ends_with($operation, 'AcceptingNewActivities');
            $action = $management ? BM . "/BESManagementPortType/$operation" : BF . "/BESFactoryPortType/$operation";
            $headers = [
                new SoapHeader(WSA, 'To', $url, true),
                new SoapHeader(WSA, 'Action', $action, true),
                new SoapHeader(WSA, 'MessageID', 'urn:uuid:' . bin2hex(random_bytes(16))),
            ];
        }
        $answer = $client->__soapCall($operation, [$arguments], null, $headers);
        if ($addressing) {
            want(str_contains($client->__getLastResponse(), "{$operation}Response</"), 'the answer has no Action');
            want(str_contains($client->__getLastResponse(), 'RelatesTo>'), 'the answer has no RelatesTo');
        }
        return $answer;
    };
    $application = new SoapVar('<posix:POSIXApplication xmlns:posix="' . POSIX . '">'
        . '<posix:Executable>/bin/sleep</posix:Executable><posix:Argument>60</posix:Argument>'
        . '</posix:POSIXApplication>', XSD_ANYXML);
    $document = ['ActivityDocument' => ['JobDefinition' => ['JobDescription' => [
        'JobIdentification' => ['JobName' => "php $mode"],
        'Application' => ['any' => $application],
        'Resources' => ['TotalCPUCount' => ['Exact' => [['_' => 1]]]],
    ]]]];
    $identifier = check('CreateActivity', $mode, function () use ($call, $document) {
        $id = $call('CreateActivity', $document)->ActivityIdentifier;
        want(str_starts_with($id->Address->_ ?? $id->Address, 'http'), 'there is no address');
        want(str_contains($id->ReferenceParameters->any, 'ActivityId'), 'there is no reference parameter');
        return $id;
    });
    if ($identifier === null) {
        return;
    }
    $address = $identifier->Address->_ ?? $identifier->Address;
    $parameters = $identifier->ReferenceParameters->any;
    $epr = [
        'Address' => ['_' => $address],
        'ReferenceParameters' => ['any' => new SoapVar($parameters, XSD_ANYXML)],
    ];
    $unknown = ['Address' => ['_' => 'http://elsewhere.example/bes/a/none']];
    $both = ['ActivityIdentifier' => [$epr, $unknown]];

    check('GetActivityStatuses', $mode, function () use ($call, $both, $address) {
        $r = items($call('GetActivityStatuses', $both)->Response);
        want(count($r) === 2, count($r) . ' items for 2 activities');
        want(in_array($r[0]->ActivityStatus->state, STATES, true), 'the state is ' . $r[0]->ActivityStatus->state);
        want(!isset($r[0]->Fault), 'there is a fault for a good activity');
        $echo = $r[0]->ActivityIdentifier->Address;
        want(($echo->_ ?? $echo) === $address, 'the status is of another activity');
        want(!isset($r[1]->ActivityStatus) && str_contains($r[1]->Fault->faultcode, 'Client'), 'there is no fault for an unknown activity');
        want(str_contains(print_r($r[1]->Fault->detail, true), 'Message'), 'the fault has no detail');
    });
    check('GetActivityDocuments', $mode, function () use ($call, $both, $mode) {
        $r = items($call('GetActivityDocuments', $both)->Response);
        $job = $r[0]->JobDefinition->JobDescription;
        want($job->JobIdentification->JobName === "php $mode", 'the job has another name');
        want(str_contains(print_r($job->Application->any, true), '/bin/sleep'), 'the job has another application');
        want(!isset($r[1]->JobDefinition) && isset($r[1]->Fault), 'there is a document for an unknown activity');
    });
    check('GetFactoryAttributesDocument', $mode, function () use ($call) {
        $a = $call('GetFactoryAttributesDocument', [])->FactoryResourceAttributesDocument;
        want($a->IsAcceptingNewActivities === true, 'it takes no activities');
        want($a->TotalNumberOfActivities >= 1, 'it has no activities');
        want(count(items($a->NamingProfile)) >= 1 && $a->LocalResourceManagerType !== '', 'required attributes are missing');
    });
    check('TerminateActivities', $mode, function () use ($call, $both) {
        $r = items($call('TerminateActivities', $both)->Response);
        want($r[0]->Terminated === true && !isset($r[0]->Fault), 'a running activity was not terminated');
        want($r[1]->Terminated === false && isset($r[1]->Fault), 'an unknown activity was terminated');
    });
    check('StopAcceptingNewActivities', $mode, function () use ($call, $document) {
        $call('StopAcceptingNewActivities', []);
        try {
            $call('CreateActivity', $document);
        } catch (SoapFault $f) {
            want(isset($f->detail->NotAcceptingNewActivitiesFault), 'the fault is ' . $f->getMessage());
            return;
        }
        throw new Exception('a stopped service took an activity');
    });
    check('StartAcceptingNewActivities', $mode, function () use ($call) {
        $call('StartAcceptingNewActivities', []);
        $a = $call('GetFactoryAttributesDocument', [])->FactoryResourceAttributesDocument;
        want($a->IsAcceptingNewActivities === true, 'it takes no activities after it was started');
    });
}

foreach ([SOAP_1_1, SOAP_1_2] as $version) {
    foreach ([false, true] as $addressing) {
        drive($url, $version, $addressing);
    }
}
exit($failed ? 1 : 0);
